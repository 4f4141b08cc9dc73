"""Cases of torchvision and what stands on it."""
