"""A run: build it, train it, checkpoint it, measure it, export it."""
