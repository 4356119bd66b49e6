"""Learning with given labels: labels that came with the unlabeled examples and that nobody checked.

A given label is trained on as it is, on a strongly augmented view, whatever the model thinks of it. By itself this
learns the wrong ones too; it is the loss that learned weights are made for, the f_i of Learning to Reweight Examples
(Ren et al., arXiv:1803.09050), in which clean validation examples decide what each of the unlabeled ones is worth.

| paper                                        | here                       |
|----------------------------------------------|----------------------------|
| f_i, cross-entropy with the noisy label y_i  | `unsupervised`             |
| w_i, weight of an example                    | `--meta`'s learned weights |
| noise that flips labels (UniformFlip)        | `--flip_labels`            |

Departs from the paper: the labeled examples have a term of their own that no weight touches, and the noisy ones are
strongly augmented, as the unlabeled examples of FixMatch (arXiv:2001.07685) are.
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Average, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import GIVEN_LABEL, Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenLabels:
    """Cross-entropy of the strong view with the label that came with the example."""

    def needs(self) -> Needs:
        """A weak view of labeled examples, a strong one of unlabeled examples, and their given labels."""
        return Needs(
            labeled_views={"weak": "weak"},
            unlabeled_views={"strong": "strong"},
            unlabeled_columns=(GIVEN_LABEL,),
        )

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy with labels, and with given labels where there are any."""
        logits = forward({"labeled": batch.labeled.views["weak"], "strong": batch.unlabeled.views["strong"]})
        num_classes, dtype = logits["labeled"].shape[-1], logits["labeled"].dtype

        label = tf.one_hot(batch.labeled.label, num_classes, dtype=dtype)
        supervised = losses.cross_entropy(label, logits["labeled"])  # [B]

        given = batch.unlabeled.columns[GIVEN_LABEL]  # [U], -1 where there is none
        mask = tf.cast(given >= 0, dtype)  # [U]
        target = tf.one_hot(given, num_classes, dtype=dtype)  # all zeros where there is none
        unsupervised = losses.cross_entropy(target, logits["strong"])  # [U]

        truth = batch.unlabeled.label
        right = tf.cast(given == truth, dtype)
        agrees = tf.cast(given == tf.argmax(tf.stop_gradient(logits["strong"]), axis=-1), dtype)
        return Losses(
            labeled={"cross_entropy": Term(supervised)},
            unlabeled={"given_label": Term(unsupervised, mask=mask)},
            metrics={
                "given_label_accuracy": Average(right, mask * tf.cast(truth >= 0, dtype)),
                "given_label_agreement": Average(agrees, mask),
            },
        )
