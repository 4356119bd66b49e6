"""The student's side of Meta Pseudo Labels: what it learns from, and how labels are made for it.

Labels are made by functions of the teacher's logits, and all that the feedback asks of them is what they were and how
probable. A teacher that samples something else, such as sentences (Meta Back-Translation, thesis, chapter 6), needs
another such function and no other feedback.
"""

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import (
    TEACHER_LABEL,
    Average,
    Batch,
    Context,
    Forward,
    Inputs,
    Losses,
    Needs,
    Parameters,
    Term,
    View,
)
from metassl_tf.learner import distribution
from metassl_tf.meta.feedback import Labels

_VIEW: View = "strong"


def student_view(needs: Needs) -> tuple[str, Needs]:
    """Which image the student learns from, and the teacher labels: the algorithm's own strong view where it has one.

    Args:
      needs: of the teacher's algorithm.

    Returns:
      The name of the unlabeled view, and what the pipeline has to provide.
    """
    own = next((name for name, kind in needs.unlabeled_views.items() if kind == _VIEW), None)
    if own:
        return own, needs
    views = {**needs.unlabeled_views, "student": _VIEW}
    return "student", dataclasses.replace(needs, unlabeled_views=views)


class SharedForward:
    """The forward pass of the teacher's algorithm, with the student's images in its first joint pass.

    The teacher labels the very images that the student learns from, in the pass that its own losses come from.
    """

    def __init__(self, forward: Forward, inputs: Inputs) -> None:
        """Wraps the passes of a step.

        Args:
          forward: of the teacher.
          inputs: the images, [batch, ...].
        """
        self._forward, self._inputs = forward, inputs
        self.logits: tf.Tensor | None = None

    def __call__(
        self, inputs: Mapping[str, Inputs], *, parameters: Parameters = "raw", update_statistics: bool = True
    ) -> dict[str, tf.Tensor]:
        """Runs one joint pass; see `metassl_tf.algorithms.base.Forward`."""
        if self.logits is not None or parameters != "raw":
            return self._forward(inputs, parameters=parameters, update_statistics=update_statistics)
        name = next((key for key, value in inputs.items() if value is self._inputs), None)
        joint = inputs if name else {**inputs, "images of the student": self._inputs}
        found = self._forward(joint, update_statistics=update_statistics)
        self.logits = found[name or "images of the student"]
        return {key: found[key] for key in inputs}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnFromTeacher:
    """Cross-entropy of one view of unlabeled examples with the teacher's labels: all that a student learns from.

    Attributes:
      view: name of the unlabeled view.
      label_smoothing: share of the labels' mass spread over all classes.
    """

    view: str
    label_smoothing: float = 0.0

    def needs(self) -> Needs:
        """The view; labels come from the teacher."""
        return Needs(labeled_views={}, unlabeled_views={self.view: _VIEW})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """CE(q, S(x_u; theta_S)) of each example, [batch]."""
        logits = forward({"student": batch.unlabeled.views[self.view]})["student"]
        given = batch.unlabeled.columns[TEACHER_LABEL]
        target = (1.0 - self.label_smoothing) * given + self.label_smoothing / logits.shape[-1]
        agrees = tf.cast(tf.argmax(logits, axis=-1) == tf.argmax(given, axis=-1), logits.dtype)
        return Losses(
            labeled={},
            unlabeled={"teacher_label": Term(losses.cross_entropy(target, logits))},
            metrics={"agreement": Average(agrees, tf.ones_like(agrees))},
        )


LabelMaker = Callable[[tf.Tensor, tf.Tensor], Labels]


def sampled(logits: tf.Tensor, seed: tf.Tensor) -> Labels:
    """Draws y_u ~ T(x_u) for each example, once; the same labels stand in both losses.

    Args:
      logits: of the teacher, [batch, classes].
      seed: int32 [2]; with it, an example's place in the global batch determines the draw.
    """
    log_probability = tf.nn.log_softmax(logits)
    drawn = _uniform(logits.shape[0], seed, logits.dtype)
    below = tf.cumsum(tf.exp(tf.stop_gradient(log_probability)), axis=-1) < drawn[:, tf.newaxis]
    label = tf.minimum(tf.reduce_sum(tf.cast(below, tf.int32), axis=-1), logits.shape[-1] - 1)
    return _of_class(label, log_probability)


def most_probable(logits: tf.Tensor, seed: tf.Tensor) -> Labels:
    """Takes the class with the largest logit: no sample, so no feedback can be had from it."""
    del seed
    return _of_class(tf.argmax(logits, axis=-1), tf.nn.log_softmax(logits))


def distribution_itself(logits: tf.Tensor, seed: tf.Tensor) -> Labels:
    """Takes the teacher's distribution, differentiated through."""
    del seed
    return Labels(tf.nn.softmax(logits), tf.zeros_like(logits[:, 0]))


LABEL_MAKERS: dict[str, LabelMaker] = {
    "sampled": sampled,
    "argmax": most_probable,
    "soft": distribution_itself,
}


def _of_class(label: tf.Tensor, log_probability: tf.Tensor) -> Labels:
    target = tf.one_hot(label, log_probability.shape[-1], dtype=log_probability.dtype)
    return Labels(target, tf.reduce_sum(target * log_probability, axis=-1))


def _uniform(size: int, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """This replica's part of numbers in (0, 1) for the global batch, [size]."""
    replica = distribution.replica_context()
    shape = [replica.num_replicas_in_sync, size]
    # Whole numbers, unlike fractions, are the same ones under XLA.
    whole = tf.random.stateless_uniform(shape, seed, minval=0, maxval=2**23, dtype=tf.int32, alg="philox")
    own = tf.gather(whole, replica.replica_id_in_sync_group)
    return (tf.cast(own, dtype) + 0.5) / 2.0**23
