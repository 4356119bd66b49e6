"""What the page tells, gathered once; the sections only read it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from metassl_tf.data.examples import Dataset, Examples, Modality
from metassl_tf.engine.evaluated_sets import evaluator_of
from metassl_tf.engine.evaluator import Evaluator
from metassl_tf.engine.history import Row
from metassl_tf.engine.learned_weights import LearnedWeights
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.summaries import view_grid
from metassl_tf.engine.workdir import Workdir

_REGION_SIDE = 160
_REGION_MARGIN = 0.08


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the averaged weights of the last step say about a set.

    Attributes:
      name: `test` or `validation`.
      probabilities: float64 [N, K].
      examples: those of the set whose class is known, N of them.
    """

    name: str
    probabilities: npt.NDArray[np.float64]
    examples: Examples

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable class, int64 [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """The probability of that class, float64 [N]."""
        return self.probabilities.max(axis=1)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Where that class is not the true one, bool [N]."""
        return self.predicted != self.examples.labels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """What the averaged weights say about a grid of points in the plane.

    Attributes:
      horizontal: float64 [W], first coordinates, rising.
      vertical: float64 [H], second coordinates, rising.
      probabilities: float64 [H, W, K].
    """

    horizontal: npt.NDArray[np.float64]
    vertical: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """Everything a section may tell.

    Attributes:
      result: the content of `result.json`.
      rows: the run's evaluations, as in `metrics.jsonl`.
      flagfile: the text of `config.flags`.
      workdir: folder of the run, for the commands that are shown.
      class_names: name of each class, in the order of the labels.
      modality: what an example is.
      labeled: the labeled examples.
      unlabeled: the unlabeled ones.
      predictions: for the test set, else for validation; None where neither has an example of known class.
      views: `labeled/<view>` and `unlabeled/<view>` -> uint8 [N, H, W, C], the first images of the first batch.
      regions: decision regions; None but for points of the plane.
      weights: what was learned about the unlabeled examples; None for a run without a weight for each.
    """

    result: Mapping[str, Any]
    rows: list[Row]
    flagfile: str
    workdir: Path
    class_names: tuple[str, ...]
    modality: Modality
    labeled: Examples
    unlabeled: Examples
    predictions: Predictions | None
    views: Mapping[str, npt.NDArray[np.uint8]]
    regions: Regions | None
    weights: LearnedWeights | None


def collect(
    experiment: Experiment,
    evaluators: Mapping[str, Evaluator],
    *,
    workdir: Workdir,
    rows: list[Row],
    result: Mapping[str, Any],
    weights: LearnedWeights | None = None,
) -> Content:
    """Gathers what the page tells, asking the model for predictions once.

    Args:
      experiment: a run at its last step.
      evaluators: of its `test` and `validation` sets, as far as there are any.
      workdir: folder of the run; holds `config.flags`.
      rows: the run's evaluations.
      result: the content of `result.json`.
      weights: the learned weights, where there are some.

    Returns:
      The content.
    """
    return Content(
        result=result,
        rows=rows,
        flagfile=workdir.config.read_text(),
        workdir=workdir.root,
        class_names=experiment.dataset.class_names,
        modality=experiment.dataset.modality,
        labeled=experiment.labeled,
        unlabeled=experiment.unlabeled,
        predictions=_predictions(evaluators),
        views=view_grid(experiment, experiment.pipeline()),
        regions=_regions(experiment),
        weights=weights,
    )


def _predictions(evaluators: Mapping[str, Evaluator]) -> Predictions | None:
    for name in ("test", "validation"):
        if name not in evaluators:
            continue
        examples = evaluators[name].examples
        known = examples.labels >= 0
        if known.any():
            logits = evaluators[name].logits()["ema"][known].astype(np.float64)
            examples = examples.take(np.flatnonzero(known))
            return Predictions(name=name, probabilities=softmax(logits, axis=1), examples=examples)
    return None


def _regions(experiment: Experiment) -> Regions | None:
    dataset = experiment.dataset
    if dataset.train.shape != (2,):
        return None
    horizontal, vertical = (_axis(dataset, coordinate) for coordinate in (0, 1))
    grid = np.stack(np.meshgrid(horizontal, vertical), axis=-1)  # [H, W, 2]
    points = grid.reshape(-1, 2).astype(np.float32)
    examples = Examples(points, np.full(len(points), -1), (2,))
    logits = evaluator_of(experiment, experiment.learner, examples, kinds=("ema",)).logits()["ema"].astype(np.float64)
    return Regions(
        horizontal=horizontal,
        vertical=vertical,
        probabilities=softmax(logits, axis=1).reshape(*grid.shape[:2], -1),
    )


def _axis(dataset: Dataset, coordinate: int) -> npt.NDArray[np.float64]:
    """Coordinates that cover all points, with a margin."""
    values = np.concatenate([dataset.train.inputs[:, coordinate], dataset.test.inputs[:, coordinate]])
    margin = _REGION_MARGIN * (float(np.ptp(values)) or 1.0)
    return np.linspace(values.min() - margin, values.max() + margin, _REGION_SIDE)
