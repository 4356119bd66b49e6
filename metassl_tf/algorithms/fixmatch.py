"""FixMatch (Sohn et al., arXiv:2001.07685).

The prediction on a weakly augmented image, where it is confident, is the label of the strongly augmented one.

| paper                                  | here                     | equation |
|----------------------------------------|--------------------------|----------|
| alpha(x_b), alpha(u_b): weak view      | `views["weak"]`          |          |
| A(u_b): strong view                    | `views["strong"]`        |          |
| q_b = p_m(y | alpha(u_b))              | `probability`            | (4)      |
| argmax(q_b)                            | `pseudo_label`           | (4)      |
| tau                                    | `threshold`              | (4)      |
| lambda_u                               | `--unlabeled_weight`     | l_s + lambda_u l_u |
| mu, ratio of unlabeled to labeled      | `--unlabeled_ratio`      | (4)      |

Departs from the paper: nothing; the strong view's policy (RandAugment or another) is the pipeline's setting.
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import Batch
from metassl_tf.algorithms.metrics import pseudo_label_metrics
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixMatch:
    """Hard pseudo labels from the weak view, learned on the strong view."""

    threshold: float = setting(
        0.95, "Probability from which on a prediction becomes a pseudo label.", minimum=0.0, maximum=1.0
    )

    def needs(self) -> Needs:
        """A weak view of each side and a strong one of the unlabeled examples."""
        return Needs(labeled_views={"weak": "weak"}, unlabeled_views={"weak": "weak", "strong": "strong"})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy with labels on the weak view, with pseudo labels on the strong one."""
        logits = forward(
            {
                "labeled": batch.labeled.views["weak"],
                "weak": batch.unlabeled.views["weak"],
                "strong": batch.unlabeled.views["strong"],
            }
        )
        num_classes, dtype = logits["labeled"].shape[-1], logits["labeled"].dtype

        label = tf.one_hot(batch.labeled.label, num_classes, dtype=dtype)
        supervised = losses.cross_entropy(label, logits["labeled"])  # Eq. (3), [B]

        probability = tf.stop_gradient(tf.nn.softmax(logits["weak"]))  # q_b, [U, K]
        pseudo_label = tf.argmax(probability, axis=-1)  # [U]
        mask = tf.cast(tf.reduce_max(probability, axis=-1) >= self.threshold, dtype)  # [U]
        target = tf.one_hot(pseudo_label, num_classes, dtype=dtype)
        unsupervised = losses.cross_entropy(target, logits["strong"])  # Eq. (4), [U]

        return Losses(
            labeled={"cross_entropy": Term(supervised)},
            unlabeled={"consistency": Term(unsupervised, mask=mask)},
            metrics=pseudo_label_metrics(pseudo_label, mask, batch.unlabeled.label),
        )
