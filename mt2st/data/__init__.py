"""Prepared data: its card, how it lies on disk, its splits, and the batches that training draws from them."""
