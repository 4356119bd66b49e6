"""A student's step on a tiny problem in float64, and its look-ahead loss by brute force."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.update_rules import Adam, AdamW, Lars, RmsProp, Sgd
from metassl_tf.meta.feedback import FORMS, StudentStep, follow
from tests.learner import tiny

FEATURES, CLASSES, UNLABELED, LABELED = 3, 3, 3, 4
STEP = tf.constant(4, tf.int64)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"rule": Sgd(momentum=0.0, nesterov=False)},
    "momentum": {"rule": Sgd(nesterov=False)},
    "nesterov": {"rule": Sgd()},
    "rmsprop": {"rule": RmsProp()},
    "adam": {"rule": Adam()},
    "adamw": {"rule": AdamW()},
    "lars": {"rule": Lars(trust_coefficient=0.5)},
    "clipped": {"rule": Sgd(), "gradient_clip_norm": 0.05},
    "decayed": {"rule": RmsProp(), "l2_weight_decay": 0.1, "gradient_clip_norm": 0.3},
}


class Problem:
    """A student of two layers on three unlabeled examples, and a linear teacher."""

    def __init__(self, *, used: bool = True, **optimization: Any) -> None:
        """Builds both; `used` lets the student's optimizer have taken steps before."""
        keras.utils.set_random_seed(1)
        inputs = keras.Input((FEATURES,), dtype="float64")
        hidden = keras.layers.Dense(4, activation="tanh", dtype="float64")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float64")(hidden))
        self.student = Learner(model, tiny.optimization(**optimization), seed=0)
        if used:
            for number, gradients in enumerate(tiny.random_gradients(model, steps=int(STEP))):
                self.student.update([0.1 * part for part in gradients], [], step=tf.constant(number, tf.int64))
        generator = np.random.default_rng(0)
        self.unlabeled, self.labeled = (
            tf.constant(generator.normal(size=(size, FEATURES))) for size in (UNLABELED, LABELED)
        )
        self.label = tf.one_hot([0, 2, 1, 1], CLASSES, dtype=tf.float64)
        self.teacher = tf.constant(generator.normal(size=(FEATURES, CLASSES)))
        self.parameters = [tf.convert_to_tensor(parameter.value) for parameter in self.student.parameters]

    def logits(self, inputs: tf.Tensor, at: list[tf.Tensor]) -> tf.Tensor:
        with keras.StatelessScope(state_mapping=list(zip(self.student.parameters, at, strict=True))):
            return self.student.model(inputs, training=True)

    def labeled_loss(self, at: list[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_mean(losses.cross_entropy(self.label, self.logits(self.labeled, at)))

    def update(self, gradient: list[tf.Tensor]) -> list[tf.Tensor]:
        return self.student.pure_update(gradient, step=STEP).values

    def step(self, target: tf.Tensor) -> StudentStep:
        """The student's step on these labels, differentiable by them."""
        with tf.GradientTape() as tape:
            tape.watch(self.parameters)
            loss = tf.reduce_mean(losses.cross_entropy(target, self.logits(self.unlabeled, self.parameters)))
        gradient = tape.gradient(loss, self.parameters)
        return StudentStep(
            parameters=self.parameters,
            gradient=gradient,
            moved=self.update(gradient),
            change=lambda own: self.student.pure_update(own, step=STEP).changes,
            labeled_loss=self.labeled_loss,
            log_probability=lambda at: tf.nn.log_softmax(self.logits(self.unlabeled, at)),
            coefficients=tf.fill([UNLABELED], tf.constant(1 / UNLABELED, tf.float64)),
        )

    def teacher_log_probability(self, teacher: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(self.unlabeled @ teacher)

    def lookahead(self, teacher: tf.Tensor) -> tf.Tensor:
        """L_l at the expected update, Eq. 5.4."""
        return self.labeled_loss(self.step(tf.exp(self.teacher_log_probability(teacher))).moved)

    def by_differences(self, width: float = 1e-5) -> np.ndarray:
        found = np.zeros([FEATURES, CLASSES])
        for place in np.ndindex(*found.shape):
            change = np.zeros_like(found)
            change[place] = width
            found[place] = self.lookahead(self.teacher + change) - self.lookahead(self.teacher - change)
        return found / (2 * width)

    def by(self, form: str) -> np.ndarray:
        """The gradient by the teacher that a soft form says."""
        with tf.GradientTape() as tape:
            tape.watch(self.teacher)
            target = tf.exp(self.teacher_log_probability(self.teacher))
            verdict = FORMS[form](self.step(target))
            signal = verdict.loss if verdict.loss is not None else follow(verdict.derivative, target)
        return tape.gradient(signal, self.teacher).numpy()

    def vectors(self) -> list[tf.Tensor]:
        """All vectors of labels, one-hot."""
        return [
            tf.one_hot(labels, CLASSES, dtype=tf.float64)
            for labels in itertools.product(range(CLASSES), repeat=UNLABELED)
        ]

    def expected(self, gradient_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> np.ndarray:
        """The mean over all vectors of labels of the gradient of a loss of (target, log-probability of each label)."""
        total = np.zeros([FEATURES, CLASSES])
        for target in self.vectors():
            with tf.GradientTape() as tape:
                tape.watch(self.teacher)
                log_probability = tf.reduce_sum(target * self.teacher_log_probability(self.teacher), axis=1)
                loss = gradient_of(target, log_probability)
            total += np.exp(log_probability.numpy().sum()) * tape.gradient(loss, self.teacher).numpy()
        return total

    def enumerated(self) -> np.ndarray:
        """The gradient of E[L_l(theta'_S)]."""
        with tf.GradientTape() as tape:
            tape.watch(self.teacher)
            log_probability = self.teacher_log_probability(self.teacher)
            value = tf.add_n(
                [
                    tf.exp(tf.reduce_sum(target * log_probability))
                    * tf.stop_gradient(self.labeled_loss(self.step(target).moved))
                    for target in self.vectors()
                ]
            )
        return tape.gradient(value, self.teacher).numpy()


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Length of the difference as a share of the expected vector's."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
