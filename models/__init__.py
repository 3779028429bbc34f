"""Video models in plain PyTorch."""
