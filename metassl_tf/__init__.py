"""Semi-supervised learning in which the learning signal itself is learned."""

import os

# TensorFlow reads it when it is first imported; its notes on CPU features and absent GPUs are no news to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
