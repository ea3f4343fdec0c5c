"""Speed and memory of this package beside named peers and the machine's limits."""
