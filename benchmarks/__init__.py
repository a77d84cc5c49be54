"""Claims of speed, each measured beside its peer: `make bench`."""
