"""A trained model as a folder that anyone can load safely, and how it predicts."""
