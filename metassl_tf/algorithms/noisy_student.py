"""Noisy Student (Xie et al., arXiv:1911.04252): learn, with noise, from what a teacher without noise has said.

The teacher's distributions lie on disk (`python -m metassl_tf.label`). The student is the next teacher, and as large or
larger; its noise is RandAugment, which is here, and the dropout and stochastic depth of its model.

| paper                                            | here                                       |
|--------------------------------------------------|--------------------------------------------|
| y~_i = f(x~_i, theta_*), without noise (Alg. 1)   | `columns["teacher_label"]`                 |
| 1/n sum l(y_i, f^noised(x_i, theta'))             | term `cross_entropy`                       |
| 1/m sum l(y~_i, f^noised(x~_i, theta'))           | term `teacher_label`                       |
| soft pseudo labels                               | the distributions as they are              |
| data filtering and balancing (section 2)         | `--most_confident_per_class`, `--balance_classes` |

Departs from the paper in what `data.selection` says of filtering and balancing.

Reduced Meta Pseudo Labels (arXiv:2003.10580v1, section 3.2) differs from it in nothing but a teacher that keeps
learning: the same losses, with `--meta=reduced_meta_pseudo_labels`.
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Average, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyStudent:
    """Cross-entropy of strong views with labels, and with a teacher's stored distributions."""

    label_smoothing: float = setting(0.0, "Share of the label's mass spread over all classes.", minimum=0.0, below=1.0)

    def needs(self) -> Needs:
        """A strong view of each side, and a teacher's distributions for the unlabeled examples."""
        return Needs(
            labeled_views={"strong": "strong"},
            unlabeled_views={"strong": "strong"},
            unlabeled_columns=(TEACHER_LABEL,),
        )

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy with labels, and with distributions."""
        logits = forward({"labeled": batch.labeled.views["strong"], "strong": batch.unlabeled.views["strong"]})
        num_classes, dtype = logits["labeled"].shape[-1], logits["labeled"].dtype

        label = losses.smooth_one_hot(batch.labeled.label, num_classes, smoothing=self.label_smoothing, dtype=dtype)
        supervised = losses.cross_entropy(label, logits["labeled"])  # [B]
        target = tf.cast(batch.unlabeled.columns[TEACHER_LABEL], dtype)  # [U, K]
        unsupervised = losses.cross_entropy(target, logits["strong"])  # [U]

        said, truth = tf.argmax(target, axis=-1), batch.unlabeled.label
        right = tf.cast(said == truth, dtype)
        agrees = tf.cast(said == tf.argmax(tf.stop_gradient(logits["strong"]), axis=-1), dtype)
        entropy = -tf.reduce_sum(tf.math.xlogy(target, target), axis=-1)
        everywhere = tf.ones_like(agrees)
        return Losses(
            labeled={"cross_entropy": Term(supervised)},
            unlabeled={"teacher_label": Term(unsupervised)},
            metrics={
                "teacher_label_accuracy": Average(right, tf.cast(truth >= 0, dtype)),
                "teacher_label_entropy": Average(tf.stop_gradient(entropy), everywhere),
                "agreement": Average(agrees, everywhere),
            },
        )
