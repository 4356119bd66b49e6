"""Unsupervised Data Augmentation, UDA (Xie et al., arXiv:1904.12848).

The prediction on an example, sharpened, is the target distribution of its strongly augmented version.

| paper                                              | here                         |
|----------------------------------------------------|------------------------------|
| p~(y | x), prediction on the original example      | `views["weak"]`, `target`    |
| q(x^ | x), augmented example                        | `views["strong"]`            |
| tau, softmax temperature (3.2 sharpening)          | `temperature`                |
| beta, confidence threshold (3.2 masking)           | `threshold`                  |
| eta_t, annealing threshold (3.2 TSA)               | `_annealing_threshold`       |
| lambda                                             | `--unlabeled_weight`         |

The paper masks on the plain probability; Meta Pseudo Labels' authors mask on the sharpened one, hence
`confidence`. Masked unlabeled losses are divided by the whole unlabeled batch. Training-signal annealing drops
labeled examples that the model already predicts better than eta_t and divides by the number kept, as in the
released code (google-research/uda).
"""

import dataclasses

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Average, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import Batch
from metassl_tf.algorithms.metrics import pseudo_label_metrics
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uda:
    """Consistency between an example and its strong augmentation."""

    temperature: float = setting(0.4, "Softmax temperature of the target distribution.", above=0.0)
    threshold: float = setting(0.8, "Probability above which a target is used; 0 uses all.", minimum=0.0, maximum=1.0)
    confidence: str = setting(
        "raw",
        "Which probability meets the threshold: raw, or tempered by the temperature.",
        choices=("raw", "tempered"),
    )
    annealing: str = setting(
        "none",
        "Training-signal annealing: how the threshold on labeled examples grows.",
        choices=("none", "linear", "log", "exp"),
    )
    label_smoothing: float = setting(0.0, "Share of the label's mass spread over all classes.", minimum=0.0, below=1.0)

    def needs(self) -> Needs:
        """A weak view of each side and a strong one of the unlabeled examples."""
        return Needs(labeled_views={"weak": "weak"}, unlabeled_views={"weak": "weak", "strong": "strong"})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Cross-entropy with labels, and KL divergence from the sharpened prediction."""
        logits = forward(
            {
                "labeled": batch.labeled.views["weak"],
                "weak": batch.unlabeled.views["weak"],
                "strong": batch.unlabeled.views["strong"],
            }
        )
        labeled, metrics = self._labeled_term(logits["labeled"], batch.labeled.label, context)

        raw = tf.stop_gradient(tf.nn.softmax(logits["weak"]))  # [U, K]
        target = tf.stop_gradient(losses.sharpen(logits["weak"], self.temperature))  # [U, K]
        confident = raw if self.confidence == "raw" else target
        mask = tf.cast(tf.reduce_max(confident, axis=-1) > self.threshold, raw.dtype)  # [U]
        unsupervised = losses.kl_divergence(target, logits["strong"])  # Eq. (1), second term, [U]

        metrics |= pseudo_label_metrics(tf.argmax(raw, axis=-1), mask, batch.unlabeled.label)
        unlabeled = Term(unsupervised, mask=mask)
        return Losses(labeled={"cross_entropy": labeled}, unlabeled={"consistency": unlabeled}, metrics=metrics)

    def _labeled_term(self, logits: tf.Tensor, label: tf.Tensor, context: Context) -> tuple[Term, dict[str, Average]]:
        smooth = losses.smooth_one_hot(label, logits.shape[-1], smoothing=self.label_smoothing, dtype=logits.dtype)
        supervised = losses.cross_entropy(smooth, logits)  # [B]
        if self.annealing == "none":
            return Term(supervised), {}
        target = tf.one_hot(label, logits.shape[-1], dtype=logits.dtype)
        probability = tf.stop_gradient(tf.reduce_sum(target * tf.nn.softmax(logits), axis=-1))
        kept = tf.cast(probability <= self._annealing_threshold(context, logits.shape[-1]), logits.dtype)
        return Term(supervised * kept, counts=kept), {"share_kept_labeled": Average(kept, tf.ones_like(kept))}

    def _annealing_threshold(self, context: Context, num_classes: int) -> tf.Tensor:
        """eta_t = alpha_t (1 - 1/K) + 1/K, the paper's section 3.2 (TSA); alpha_t grows from 0 to 1."""
        progress = tf.cast(context.step, tf.float32) / context.total_steps
        growth = {
            "linear": progress,
            "exp": tf.exp(5.0 * (progress - 1.0)),
            "log": 1.0 - tf.exp(-5.0 * progress),
        }[self.annealing]
        return growth * (1.0 - 1.0 / num_classes) + 1.0 / num_classes
