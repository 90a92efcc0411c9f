"""A trained model behind HTTP. Bundles and what lies below them only: never PyTorch."""
