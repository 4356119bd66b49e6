"""What learned weights say about the unlabeled examples: `weights.csv`, and how well they tell right from wrong."""

import csv
import dataclasses
import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from metassl_tf.algorithms.batch import GIVEN_LABEL, TEACHER_LABEL
from metassl_tf.data.pollution import POLLUTED
from metassl_tf.engine.csv_names import file_cell
from metassl_tf.engine.evaluated_sets import evaluator_of, teacher_logits
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.workdir import Workdir, write_atomically

# What makes an example trustworthy.
Measure = Literal["given_label", "pollution", "teacher_label", "pseudo_label"]
_COLUMNS = (
    *("index", "file", "weight", "updates", "influence"),
    *("given_label", "predicted_label", "confidence", "agreement"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LearnedWeights:
    """The unlabeled examples with their weights, in the split's order; every array is [N].

    Attributes:
      weight: float32.
      updates: how often the weight was moved, int64.
      influence: latest derivative of the validation loss by the weight, float32; 0 where there was none.
      given_label: int64, what was learned of the example: the label that came with it, -1 where none did, or the
        class that a teacher's label, stored or of its last weights, makes most probable. None where that was the
        network's own prediction.
      truth: int64, the class kept for measuring, -1 where it is not known.
      predicted: int64, class by the averaged weights at the last step.
      confidence: float64, probability of that class.
      agreement: float64, probability of the given label by the same weights; that of the predicted class where no label
        is given. What a plain look at the predictions says about the labels.
      trustworthy: bool. Where it can be known, whether the example deserves its weight: the label that came with it is
        right; in a polluted pool, it belongs to a known class; else its teacher's label is right, or without a teacher
        its pseudo label, for which the prediction stands.
      measure: which of these it is.
      measured: bool, the examples that `trustworthy` is known for and that are not labeled anyway.
    """

    weight: npt.NDArray[np.float32]
    updates: npt.NDArray[np.int64]
    influence: npt.NDArray[np.float32]
    given_label: npt.NDArray[np.int64] | None
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    agreement: npt.NDArray[np.float64]
    trustworthy: npt.NDArray[np.bool_]
    measure: Measure
    measured: npt.NDArray[np.bool_]

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve of the weight for telling trustworthy examples; None where all are alike."""
        return _auroc(self.trustworthy[self.measured], self.weight[self.measured])

    @property
    def confidence_auroc(self) -> float | None:
        """The same of the model's confidence, to compare with; it does not see a given label."""
        return _auroc(self.trustworthy[self.measured], self.confidence[self.measured])

    @property
    def agreement_auroc(self) -> float | None:
        """The same of the probability that the model gives to the given label."""
        return _auroc(self.trustworthy[self.measured], self.agreement[self.measured])

    @property
    def most_suspicious_first(self) -> npt.NDArray[np.int64]:
        """Positions by rising weight; of equal weights the latest influence that spoke more against it comes first."""
        return np.lexsort((-self.influence, self.weight))


def learned_weights(experiment: Experiment) -> LearnedWeights | None:
    """Reads the weights of a run and predicts its unlabeled examples; None for a run without a weight for each.

    Args:
      experiment: a run at any step.
    """
    if experiment.weighting is None or experiment.weighting.settings.single_weight:
        return None
    columns = {name: value.numpy() for name, value in experiment.weighting.table.columns().items()}
    unlabeled = experiment.unlabeled
    evaluator = evaluator_of(experiment, experiment.learner, unlabeled, kinds=("ema",))
    probabilities = softmax(evaluator.logits()["ema"].astype(np.float64), axis=1)
    predicted = probabilities.argmax(axis=1)
    kind, given = _given_labels(experiment)
    agreed = predicted if given is None else np.where(given >= 0, given, predicted)
    polluted = unlabeled.columns.get(POLLUTED)
    measure, trustworthy, known = _trustworthy(unlabeled.labels, predicted, kind, given, polluted)
    return LearnedWeights(
        weight=columns["weight"],
        updates=columns["updates"],
        influence=columns["latest_influence"],
        given_label=given,
        truth=unlabeled.labels,
        predicted=predicted,
        confidence=probabilities.max(axis=1),
        agreement=probabilities[np.arange(len(agreed)), agreed],
        trustworthy=trustworthy,
        measure=measure,
        measured=known & ~np.isin(experiment.split.unlabeled, experiment.split.labeled),
    )


def _given_labels(experiment: Experiment) -> tuple[Measure, npt.NDArray[np.int64] | None]:
    """What is learned of the examples, where it is not the network's own prediction: (where it comes from, labels)."""
    columns, teaching = experiment.unlabeled.columns, experiment.teaching
    learned = experiment.training.algorithm.needs().unlabeled_columns
    if GIVEN_LABEL in learned:
        return "given_label", columns[GIVEN_LABEL]
    if teaching:
        return "teacher_label", teacher_logits(experiment, teaching, experiment.unlabeled)().argmax(axis=1)
    if TEACHER_LABEL in learned:
        return "teacher_label", columns[TEACHER_LABEL].argmax(axis=1)
    return "pseudo_label", None


def _trustworthy(
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    kind: Measure,
    given: npt.NDArray[np.int64] | None,
    polluted: npt.NDArray[np.int64] | None,
) -> tuple[Measure, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(by what it is measured, whether an example deserves its weight, whether that is known)."""
    if kind != "given_label" and polluted is not None and polluted.any():
        return "pollution", polluted == 0, np.ones(len(truth), bool)
    if given is None:
        return kind, predicted == truth, truth >= 0
    return kind, given == truth, (truth >= 0) & (given >= 0)


def _auroc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float | None:
    return float(roc_auc_score(positive, score)) if positive.any() and not positive.all() else None


def write_weights(weights: LearnedWeights, experiment: Experiment, workdir: Workdir) -> None:
    """Writes `weights.csv`, most suspicious first.

    Columns: `index` (position in the split's unlabeled list), `file` (or the number of the example where it has no
    name), `weight`, `updates`, `influence`, `given_label`, `predicted_label`, `confidence`, `agreement`; class
    names for labels, empty where there is none. A teacher's label counts as given.

    Args:
      weights: of the run.
      experiment: the run.
      workdir: where it lives.
    """
    names = experiment.unlabeled.names
    classes = experiment.dataset.class_names
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for place in weights.most_suspicious_first.tolist():
        given = -1 if weights.given_label is None else int(weights.given_label[place])
        writer.writerow(
            [
                place,
                file_cell(str(names[place])) if names is not None and names[place] else f"unlabeled {place}",
                f"{weights.weight[place]:.7g}",
                int(weights.updates[place]),
                f"{weights.influence[place]:.7g}",
                classes[given] if given >= 0 else "",
                classes[weights.predicted[place]],
                f"{weights.confidence[place]:.7g}",
                f"{weights.agreement[place]:.7g}",
            ]
        )
    write_atomically(workdir.weights, lambda file: file.write(text.getvalue().encode()))
