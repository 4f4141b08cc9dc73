"""tikhon beside its peers: time and memory. `make bench` runs everything."""
