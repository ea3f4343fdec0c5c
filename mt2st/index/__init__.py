"""Search indexes behind one protocol."""
