"""A model that learns, and the one place where losses become an update."""
