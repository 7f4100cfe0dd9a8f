"""The workers of this package's side; nothing here imports PyTorch."""
