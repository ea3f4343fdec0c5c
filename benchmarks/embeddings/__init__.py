"""A whole set through the encoder of a trained run: a folder of memory-mapped embeddings, made by several processes."""
