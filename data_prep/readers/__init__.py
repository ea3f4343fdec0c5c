"""Readers of file formats: tables, JSON streams, tar shards, IDX."""
