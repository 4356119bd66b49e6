"""The student's side of Meta Pseudo Labels: what it learns from, and how labels are made for it.

A `Sampler` lets the teacher make what the student learns from: its inputs, its labels, and how probable these were,
which is all that the sampled forms of the feedback ask. Here the inputs are the unlabeled images as they are and the
labels are classes; a teacher that samples sentences for the student to read, word by word (Meta Back-Translation,
thesis, chapter 6), is another such function, and no other feedback.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Average, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch, Inputs, View
from metassl_tf.learner import distribution

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

    The teacher labels the very images that the student learns from, in the pass that its own losses come from. An
    algorithm that looks at them anyway, as UDA and FixMatch do, has the losses that it has alone. One that does not,
    such as supervised learning, has more images in its pass, and so other statistics of batch normalisation.
    """

    def __init__(self, forward: Forward, inputs: Inputs) -> None:
        """Wraps the passes of a step.

        Args:
          forward: of the teacher.
          inputs: the images, [batch, ...].
        """
        self._forward, self._inputs = forward, inputs
        self._logits: tf.Tensor | None = None

    def __call__(self, inputs: Mapping[str, Inputs], *, update_statistics: bool = True) -> dict[str, tf.Tensor]:
        """Runs one joint pass; see `metassl_tf.algorithms.base.Forward`."""
        if self._logits is not None:
            return self._forward(inputs, update_statistics=update_statistics)
        name = next((key for key, value in inputs.items() if value is self._inputs), None)
        joint = inputs if name else {**inputs, "images of the student": self._inputs}
        found = self._forward(joint, update_statistics=update_statistics)
        self._logits = found[name or "images of the student"]
        return {key: found[key] for key in inputs}

    def logits_of(self, inputs: Inputs) -> tf.Tensor:
        """What the network says: of the student's images in the joint pass, of anything else in a pass of its own."""
        if inputs is not self._inputs:
            return self._forward({"other": inputs}, update_statistics=False)["other"]
        if self._logits is None:
            raise TypeError(
                "The teacher's algorithm made no forward pass, in which the student's images would have been labeled."
            )
        return self._logits


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


class Sample(NamedTuple):
    """What a teacher has made of unlabeled examples for its student.

    Attributes:
      inputs: what the student sees, [batch, ...].
      labels: what it is to say, [batch, ...]: of classification distributions, [batch, classes], differentiated
        through where they are the teacher's own.
      log_probability: of what was sampled for each example, [batch]; differentiated through.
    """

    inputs: Inputs
    labels: tf.Tensor
    log_probability: tf.Tensor


Teacher = Callable[[Inputs], tf.Tensor]
"""Inputs -> logits, tempered. The unlabeled examples have theirs from the pass that the teacher's own losses come from;
of other inputs, such as what was drawn so far, each call makes a pass."""
Sampler = Callable[[Teacher, Inputs, Inputs, tf.Tensor], Sample]
"""(teacher, unlabeled examples as the teacher sees them, as the student sees them, seed) -> sample. The seed is int32
[2]; with it, an example's place in the global batch determines the draw."""


def sampled_class(teacher: Teacher, seen: Inputs, inputs: Inputs, seed: tf.Tensor) -> Sample:
    """Draws y_u ~ T(x_u) for each example, once; the same labels stand in both losses."""
    log_probability = tf.nn.log_softmax(_logits(teacher, seen))
    drawn = _uniform(log_probability.shape[0], seed, log_probability.dtype)
    below = tf.cumsum(tf.exp(tf.stop_gradient(log_probability)), axis=-1) < drawn[:, tf.newaxis]
    label = tf.minimum(tf.reduce_sum(tf.cast(below, tf.int32), axis=-1), log_probability.shape[-1] - 1)
    return _of_class(inputs, label, log_probability)


def most_probable_class(teacher: Teacher, seen: Inputs, inputs: Inputs, seed: tf.Tensor) -> Sample:
    """Takes the class with the largest logit: no sample, so no feedback can be had from it."""
    del seed
    logits = _logits(teacher, seen)
    return _of_class(inputs, tf.argmax(logits, axis=-1), tf.nn.log_softmax(logits))


def distribution_itself(teacher: Teacher, seen: Inputs, inputs: Inputs, seed: tf.Tensor) -> Sample:
    """Takes the teacher's distribution, differentiated through."""
    del seed
    logits = _logits(teacher, seen)
    return Sample(inputs, tf.nn.softmax(logits), tf.zeros_like(logits[:, 0]))


SAMPLERS: dict[str, Sampler] = {
    "sampled": sampled_class,
    "argmax": most_probable_class,
    "soft": distribution_itself,
}


def _logits(teacher: Teacher, seen: Inputs) -> tf.Tensor:
    """What a teacher that tells classes apart says, [batch, classes]."""
    logits = teacher(seen)
    if logits.shape.rank != 2:
        raise ValueError(
            f"A teacher of classes says one logit for each: expected [batch, classes], not {logits.shape}."
        )
    return logits


def _of_class(inputs: Inputs, label: tf.Tensor, log_probability: tf.Tensor) -> Sample:
    labels = tf.one_hot(label, log_probability.shape[-1], dtype=log_probability.dtype)
    return Sample(inputs, labels, tf.reduce_sum(labels * log_probability, axis=-1))


def _uniform(size: int, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """This replica's part of numbers in (0, 1) for the global batch, [size]."""
    replica = distribution.replica_context()
    shape = [replica.num_replicas_in_sync, size]
    # Whole numbers, unlike fractions, are the same ones under XLA.
    whole = tf.random.stateless_uniform(shape, seed, minval=0, maxval=2**23, dtype=tf.int32, alg="philox")
    own = tf.gather(whole, replica.replica_id_in_sync_group)
    return (tf.cast(own, dtype) + 0.5) / 2.0**23
