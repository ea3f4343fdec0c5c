"""A suite: which runs there are, what they cost, and running them."""
