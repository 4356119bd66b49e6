"""Losses about the loss: rules that learn the learning signal of any algorithm. The table, and nothing else."""

from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.reduced_meta_pseudo_labels import ReducedMetaPseudoLabels

META_RULES = {
    "per_example_weights": PerExampleWeights,
    "meta_pseudo_labels": MetaPseudoLabels,
    "reduced_meta_pseudo_labels": ReducedMetaPseudoLabels,
}

# What teaches, or learns from stored labels, where `--algorithm` does not say: the papers' choices.
USUAL_ALGORITHMS = {"meta_pseudo_labels": "uda", "reduced_meta_pseudo_labels": "noisy_student"}

# Rules with a second network, which the settings `--teacher_...` describe.
TEACHING_RULES = ("meta_pseudo_labels",)
