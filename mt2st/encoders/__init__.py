"""Encoders: towers and fusion behind one protocol."""
