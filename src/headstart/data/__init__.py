"""Photos: found, read, checked and split."""
