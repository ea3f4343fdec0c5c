"""A page on which people use trained runs: ask, search, compare, and see where an answer looked."""
