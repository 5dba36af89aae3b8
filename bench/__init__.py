"""How fast landing and the marts are, as ratios measured in one run: `make bench`."""
