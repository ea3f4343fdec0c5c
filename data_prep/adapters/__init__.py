"""Adapters, one file a dataset."""
