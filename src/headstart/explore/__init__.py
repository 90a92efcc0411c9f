"""Photos looked at and checked before training: what is there, what is wrong with it, what a score on it is worth."""
