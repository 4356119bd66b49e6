"""Runs on points of the plane, trained in this process and looked at on the way: where the boundary is, what weighs.

The experiments are those of the flagfiles, built and trained by the package's own code; a run measures what
`metassl_tf.train` with the same flags measures, but for a student's fine-tuning.
"""

import dataclasses
import datetime
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import logsumexp

from metassl_tf import flag_definitions
from metassl_tf.data.examples import LoadRequest
from metassl_tf.engine import run, setup
from metassl_tf.engine.evaluated_sets import evaluator_of
from metassl_tf.engine.learned_weights import learned_weights
from metassl_tf.engine.results import MEDIAN_OF, versions
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.trained import averaged_network
from metassl_tf.errors import UserError
from tools.measurements import Flagfile, Measurement
from tools.runs import current_commit

LOWEST = 0.05
"""Share of the points that count as the most down-weighted."""

Floats = npt.NDArray[np.float64]

_CENTERS = 2000


def build(flagfile: Flagfile, seed: int, teacher: Path | None = None) -> Experiment:
    """Builds a flagfile's experiment at step 0.

    Args:
      flagfile: an experiment on points of the plane.
      seed: `--seed` and `--split_seed`.
      teacher: the network that its teacher starts from, as `save` writes it; None for what the flagfile says.
    """
    keras.backend.clear_session()  # many experiments in one process would otherwise keep their graphs
    given = [] if teacher is None else [f"--init_teacher_from={teacher}"]
    experiment = setup.build(
        flag_definitions.parse([f"--flagfile={flagfile.path}", *given, f"--seed={seed}", f"--split_seed={seed}"])
    )
    run.begin(experiment)
    return experiment


def train(experiment: Experiment, steps: Sequence[int]) -> Iterator[int]:
    """Trains to the end, pausing on the way.

    Args:
      experiment: at step 0.
      steps: where to pause, beside the last one.

    Yields:
      Each of these steps, when so many have been taken.

    Raises:
      UserError: the loss is no longer finite.
    """
    trainer = run.make_trainer(experiment)
    total, taken = experiment.config.train.steps, 0
    for step in sorted({step for step in steps if 0 < step < total} | {total}):
        trainer.train(tf.constant(step - taken))
        trainer.check_finite()
        taken = step
        yield step


def margin(experiment: Experiment, points: npt.NDArray[np.floating]) -> Floats:
    """Logit of class 1 less that of class 0 by the averaged weights, float64 [N], for points [N, 2]."""
    return _margin(experiment.learner.predict(tf.constant(points, tf.float32), parameters="ema"))


def save(experiment: Experiment, path: Path) -> None:
    """Writes the averaged weights as a network of their own, a `.keras` file, in one go."""
    partial = path.with_name(f".{path.stem}.partial.keras")  # Keras insists on the ending
    averaged_network(experiment).save(partial)
    partial.replace(path)


def stored_margin(network: Path) -> Callable[[npt.NDArray[np.floating]], Floats]:
    """Reads what `save` has written.

    Returns:
      What `margin` says of the experiment, for points [N, 2].
    """
    model = keras.models.load_model(network, compile=False)
    return lambda points: _margin(model(tf.constant(points, tf.float32), training=False))


def _margin(logits: tf.Tensor) -> Floats:
    values = np.asarray(logits, np.float64)  # [N, 2]
    return values[:, 1] - values[:, 0]


def weights_of(experiment: Experiment) -> npt.NDArray[np.float32]:
    """The learned weight of every unlabeled point, [U].

    Raises:
      UserError: the experiment learns none.
    """
    if experiment.weighting is None:
        raise UserError("The figure shows learned weights. Expected a flagfile with --meta=per_example_weights.")
    weights: npt.NDArray[np.float32] = experiment.weighting.table.columns()["weight"].numpy()
    return weights


def true_margin(experiment: Experiment, points: npt.NDArray[np.floating]) -> Floats:
    """Log density of class 1 less that of class 0, float64 [N]: the ground truth changes sides where this is 0.

    A class is its noiseless points with Gaussian noise around each.

    Args:
      experiment: on points of the plane, both classes equally frequent.
      points: [N, 2].
    """
    source = experiment.config.source
    noiseless = dataclasses.replace(source, noise=0.0, num_train=_CENTERS, num_test=0).load(LoadRequest()).train
    densities = []
    for label in (0, 1):
        centers = np.unique(noiseless.inputs[noiseless.labels == label].astype(np.float64), axis=0)  # [C, 2]
        squared = np.square(points[:, np.newaxis] - centers).sum(axis=-1)  # [N, C]
        densities.append(logsumexp(-squared / (2.0 * source.noise**2), axis=1) - np.log(len(centers)))
    return densities[1] - densities[0]


def accuracy_of(experiment: Experiment) -> float:
    """Share of the test points that the averaged weights predict right."""
    test = experiment.test
    return float(np.mean((margin(experiment, test.inputs) > 0) == test.labels))


def measure(
    flagfile: Flagfile, seed: int, steps: Sequence[int], *, teacher: Path | None = None, network: Path | None = None
) -> dict[str, Any]:
    """Trains a run and measures it.

    Args:
      flagfile: an experiment on points of the plane.
      seed: `--seed` and `--split_seed`.
      steps: where the weights are looked at, beside the last one.
      teacher: the network that its teacher starts from; see `build`.
      network: where to `save` what it has learned; None for nowhere.

    Returns:
      `measurement`, the fields of a `Measurement`; and `weights`, what `down_weighted` says at each of the steps, empty
      for a run that learns none.
    """
    commit, experiment = current_commit(), build(flagfile, seed, teacher)
    eval_steps, total = experiment.config.run.eval_steps, experiment.config.train.steps
    evaluator = evaluator_of(experiment, experiment.learner, experiment.test)
    evaluations = [*range(eval_steps, total, eval_steps), total]
    accuracies: list[float] = []
    weights: list[dict[str, Any]] = []
    truth = true_margin(experiment, experiment.unlabeled.inputs) > 0
    start = time.monotonic()
    for step in train(experiment, [*evaluations, *steps]):
        if step in evaluations:
            accuracies.append(evaluator.metrics(step)["ema"]["accuracy"])
        if experiment.weighting and step in (*steps, total):
            weights.append({"step": step, **down_weighted(experiment, truth)})
    if network:
        save(experiment, network)
    beside = {}
    if experiment.teaching:
        teacher_evaluator = evaluator_of(experiment, experiment.teaching.teacher, experiment.test)
        beside["teacher"] = teacher_evaluator.metrics(total)["ema"]["accuracy"]
    measurement = Measurement(
        seed=seed,
        test_accuracy=accuracies[-1],
        median_of_last_20=statistics.median(accuracies[-MEDIAN_OF:]),
        steps=total,
        seconds=round(time.monotonic() - start, 3),
        date=datetime.date.today().isoformat(),
        commit=commit,
        note="",
        versions=versions(),
        beside=beside,
    )
    return {"measurement": dataclasses.asdict(measurement), "weights": weights}


def down_weighted(experiment: Experiment, truth: npt.NDArray[np.bool_]) -> dict[str, float | None]:
    """What is wrong with the points whose weights are lowest, and with all of them to compare.

    Args:
      experiment: one that learns a weight per point, at any step.
      truth: bool [N], whether the ground truth has class 1 at each unlabeled point.

    Returns:
      Shares, of the lowest 5 % of the weights (`.._of_lowest`) and of all points (`.._of_all`): of wrong pseudo labels,
      for which the prediction of the averaged weights stands; and of points on the other side of the true boundary than
      their class, whose label nobody could know. `auroc`: of the weight, for telling right pseudo labels; None where
      all are alike.
    """
    found = learned_weights(experiment)
    if found is None:
        raise ValueError("A run without a weight per point has no lowest weights.")
    lowest = found.most_suspicious_first[: max(1, round(LOWEST * len(found.weight)))]
    wrong, astray = found.predicted != found.truth, truth != found.truth
    return {
        "wrong_of_lowest": round(float(wrong[lowest].mean()), 6),
        "wrong_of_all": round(float(wrong.mean()), 6),
        "astray_of_lowest": round(float(astray[lowest].mean()), 6),
        "astray_of_all": round(float(astray.mean()), 6),
        "auroc": None if found.auroc is None else round(found.auroc, 6),
    }
