"""Semi-supervised learning in which the learning signal itself is learned."""

__version__ = "0.1.0"
