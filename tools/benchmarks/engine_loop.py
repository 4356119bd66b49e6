"""The engine against a training loop written by hand, on the quickstart's experiment."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from metassl_tf.algorithms.fixmatch import FixMatch
from metassl_tf.engine import run
from metassl_tf.engine.setup import Experiment
from metassl_tf.learner.update_rules import Sgd
from tools.benchmarks import experiments
from tools.benchmarks.compare import Side, rate_ratios

_QUICKSTART = "flags/digits/quickstart.flags"
_STEPS_PER_CALL = 10


def engine_vs_bare_loop(runs: int) -> Iterator[float]:
    """Steps per second, the engine over the bare loop; both read and augment their batches themselves.

    The engine also sums up its metrics, takes the gradient's norm and looks for numbers that are not finite; the bare
    loop logs nothing.
    """
    ours = experiments.steps(run.make_trainer(experiments.build(_QUICKSTART)), _STEPS_PER_CALL)
    loop, _ = bare_loop(experiments.build(_QUICKSTART))

    def theirs() -> float:
        loop(tf.constant(_STEPS_PER_CALL))
        return float(_STEPS_PER_CALL)

    return rate_ratios(Side(work=ours), Side(work=theirs), runs)


def bare_loop(experiment: Experiment) -> tuple[Callable[[tf.Tensor], None], list[tf.Variable]]:
    """Writes FixMatch down as one would without a framework: one model, one kind of device, one optimizer.

    Args:
      experiment: FixMatch with Nesterov's momentum, cosine 7/16, L2 on kernels and a ramped moving average. Its
        model's variables are changed; its learner is not used.

    Returns:
      A function that takes so many steps, int32 scalar, and the moving averages, of weights and then of statistics.
      Both change as in the engine, but for rounding.

    Raises:
      TypeError: an experiment with another algorithm or optimizer.
    """
    train, rule, algorithm = experiment.config.train, experiment.config.rule, experiment.config.algorithm
    if not isinstance(rule, Sgd) or not isinstance(algorithm, FixMatch):
        raise TypeError(f"Expected FixMatch with momentum. Received {algorithm} and {rule}.")
    model = experiment.learner.model
    weights = [variable.value for variable in model.trainable_variables]
    is_kernel = ["kernel" in variable.path for variable in model.trainable_variables]
    statistics = [variable.value for variable in model.non_trainable_variables]
    momenta = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
    averages = [tf.Variable(value) for value in (*weights, *statistics)]
    step = tf.Variable(0, dtype=tf.int64)
    iterator = iter(experiment.pipeline().batches(start_step=0, strategy=experiment.strategy))

    def loss_of(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.one_hot(label, logits.shape[-1]) * tf.nn.log_softmax(logits), axis=-1)  # [batch]

    def gradients_of_next_batch() -> list[tf.Tensor]:
        labeled, unlabeled, _ = next(iterator)
        parts = [labeled.views["weak"], unlabeled.views["weak"], unlabeled.views["strong"]]
        with tf.GradientTape() as tape:
            logits = model(tf.concat(parts, axis=0), training=True)
            of_labeled, of_weak, of_strong = tf.split(logits, [part.shape[0] for part in parts])
            probability = tf.stop_gradient(tf.nn.softmax(of_weak))
            mask = tf.cast(tf.reduce_max(probability, axis=-1) >= algorithm.threshold, tf.float32)
            loss = tf.reduce_mean(loss_of(of_labeled, labeled.label))
            loss += tf.reduce_mean(mask * loss_of(of_strong, tf.argmax(probability, axis=-1)))
        return tape.gradient(loss, weights)

    @tf.function
    def loop(num_steps: tf.Tensor) -> None:
        for _ in tf.range(num_steps):
            gradients = gradients_of_next_batch()
            count = tf.cast(step, tf.float32)
            rate = train.learning_rate * tf.cos(7.0 * 3.14159265 / 16.0 * count / train.steps)
            for weight, momentum, gradient, decayed in zip(weights, momenta, gradients, is_kernel, strict=True):
                total = gradient + train.l2_weight_decay * weight if decayed else gradient
                momentum.assign(rule.momentum * momentum - rate * total)
                weight.assign_add(rule.momentum * momentum - rate * total)
            keep = tf.minimum(train.ema_decay, (1.0 + count) / (10.0 + count))
            for average, value in zip(averages, (*weights, *statistics), strict=True):
                average.assign(keep * average + (1.0 - keep) * value)
            step.assign_add(1)

    return loop, averages
