"""What `python -m tools.benchmark` measures: one function for each name, and how two sides are compared."""
