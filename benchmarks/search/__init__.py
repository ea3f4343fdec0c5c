"""The index benchmark: recall, speed and memory of exact and approximate search."""
