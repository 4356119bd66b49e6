"""Pseudo-Label (Lee, ICML workshop 2013), as the baseline of FixMatch (arXiv:2001.07685) and the thesis' Table 5.6.

The model's own prediction on an unlabeled example, where it is confident, is taken as that example's label.

| paper                              | here              |
|------------------------------------|-------------------|
| y', class of largest probability   | `pseudo_label`    |
| threshold on it                    | `threshold`       |
| label smoothing (Table 5.6)        | `label_smoothing` |
| alpha(t) (Lee, Eq. 16)             | `--unlabeled_weight` and its ramp |

Departs from the released code (google-research/fixmatch and mixmatch): there a mask of shape [B, 1] meets losses of
shape [B], and the product is the mean loss times the mean mask; here the mask belongs to its own example.
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import Batch
from metassl_tf.algorithms.metrics import pseudo_label_metrics
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabel:
    """Cross-entropy of a prediction with its own most likely class, above a threshold."""

    threshold: float = setting(
        0.95, "Probability above which a prediction becomes a pseudo label; 0 uses all.", minimum=0.0, maximum=1.0
    )
    label_smoothing: float = setting(0.0, "Share of the label's mass spread over all classes.", minimum=0.0, below=1.0)

    def needs(self) -> Needs:
        """One weak view of each side."""
        return Needs(labeled_views={"weak": "weak"}, unlabeled_views={"weak": "weak"})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy with labels, and with confident predictions on the same view."""
        logits = forward({"labeled": batch.labeled.views["weak"], "unlabeled": batch.unlabeled.views["weak"]})
        num_classes, dtype = logits["labeled"].shape[-1], logits["labeled"].dtype

        label = losses.smooth_one_hot(batch.labeled.label, num_classes, smoothing=self.label_smoothing, dtype=dtype)
        supervised = losses.cross_entropy(label, logits["labeled"])  # [B]

        probability = tf.stop_gradient(tf.nn.softmax(logits["unlabeled"]))  # [U, K]
        pseudo_label = tf.argmax(probability, axis=-1)  # [U]
        # Strictly above, as in the released code.
        mask = tf.cast(tf.reduce_max(probability, axis=-1) > self.threshold, dtype)  # [U]
        target = tf.one_hot(pseudo_label, num_classes, dtype=dtype)
        unsupervised = losses.cross_entropy(target, logits["unlabeled"])  # [U]

        return Losses(
            labeled={"cross_entropy": Term(supervised)},
            unlabeled={"pseudo_label": Term(unsupervised, mask=mask)},
            metrics=pseudo_label_metrics(pseudo_label, mask, batch.unlabeled.label),
        )
