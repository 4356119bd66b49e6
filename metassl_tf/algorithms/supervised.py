"""Supervised learning on the labeled examples alone: the baseline of every table.

Label smoothing (Szegedy et al., 2016), mixup (Zhang et al., arXiv:1710.09412) and RandAugment (Cubuk et al.,
arXiv:1909.13719) are options, since the papers compare with each.

| paper                                   | here                  |
|-----------------------------------------|-----------------------|
| d, label smoothing (MPL v1, Table 3)    | `label_smoothing`     |
| alpha of Beta(alpha, alpha) (mixup)     | `mixup`               |

Departs from the mixup paper: the partner of an example is its neighbor in the batch (order is random anyway)
instead of a permutation, so that the result does not depend on how the batch is divided among replicas.
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Beta, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import Batch, View
from metassl_tf.errors import UserError
from metassl_tf.settings import setting


def _swap_neighbors(values: tf.Tensor) -> tf.Tensor:
    """Exchanges rows 0 and 1, 2 and 3, and so on; the number of rows is even."""
    pairs = tf.reshape(values, [-1, 2, *values.shape[1:]])
    return tf.reshape(tf.reverse(pairs, axis=[1]), tf.shape(values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised:
    """Cross-entropy with the labels."""

    label_smoothing: float = setting(0.0, "Share of the label's mass spread over all classes.", minimum=0.0, below=1.0)
    mixup: float = setting(0.0, "Concentration of mixup's Beta distribution; 0 turns mixup off.", minimum=0.0)
    labeled_view: View = setting(
        "weak", "Augmentation of the labeled examples; strong is RandAugment.", choices=("weak", "strong")
    )

    def needs(self) -> Needs:
        """One labeled view, and mixup's ratio where it is on."""
        draws = {"mixup": Beta(concentration=self.mixup)} if self.mixup else {}
        return Needs(labeled_views={self.labeled_view: self.labeled_view}, draws=draws)

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy of each labeled example, possibly mixed with its neighbor."""
        inputs = batch.labeled.views[self.labeled_view]
        partner_share = None
        if self.mixup:
            ratio = batch.draws["mixup"]
            if ratio.shape[0] % 2:
                raise UserError(
                    f"--mixup pairs the labeled examples of a replica, and --batch_size gives each {ratio.shape[0]}. "
                    "Expected an even number: choose an even --batch_size per replica."
                )
            partner_share = 1.0 - tf.maximum(ratio, 1.0 - ratio)  # the example itself keeps the larger part
            inputs = tf.nest.map_structure(lambda values: _mix(values, partner_share), inputs)
        logits = forward({"labeled": inputs})["labeled"]  # [B, K]
        target = losses.smooth_one_hot(
            batch.labeled.label, logits.shape[-1], smoothing=self.label_smoothing, dtype=logits.dtype
        )
        if partner_share is not None:
            target = _mix(target, partner_share)
        return Losses(labeled={"cross_entropy": Term(losses.cross_entropy(target, logits))}, unlabeled={}, metrics={})


def _mix(values: tf.Tensor, partner_share: tf.Tensor) -> tf.Tensor:
    """Mixes each row with its neighbor: (1 - share) x + share x_neighbor; `share` is [batch]."""
    share = tf.reshape(partner_share, [-1] + [1] * (len(values.shape) - 1))
    return (1.0 - share) * values + share * _swap_neighbors(values)
