"""The table of algorithms: one paper, one file, one line here."""

from metassl_tf.algorithms.fixmatch import FixMatch
from metassl_tf.algorithms.given_labels import GivenLabels
from metassl_tf.algorithms.noisy_student import NoisyStudent
from metassl_tf.algorithms.pseudo_label import PseudoLabel
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.algorithms.uda import Uda

ALGORITHMS = {
    "supervised": Supervised,
    "pseudo_label": PseudoLabel,
    "uda": Uda,
    "fixmatch": FixMatch,
    "given_labels": GivenLabels,
    "noisy_student": NoisyStudent,
}
