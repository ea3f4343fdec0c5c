"""What is run: one recipe a case, each a small Python file."""
