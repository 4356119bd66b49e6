"""Losses about the loss: rules that learn the learning signal of any algorithm. The table, and nothing else."""

from metassl_tf.meta.per_example_weights import PerExampleWeights

META_RULES = {"per_example_weights": PerExampleWeights}
