"""Data preparation: adapters → memory-mapped stores. Run from a clone: `python -m data_prep`."""
