"""Cases whose peers live beside the torch of `constraints.txt`."""
