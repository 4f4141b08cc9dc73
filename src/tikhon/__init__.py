"""tikhon: regularisation for PyTorch."""
