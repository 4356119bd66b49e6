"""The supervised baseline's options: label smoothing, mixup of neighbors, the labeled view."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Beta
from metassl_tf.algorithms.batch import Batch, Side
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.errors import UserError
from tests.algorithms.given_logits import logits_of, losses_at
from tests.learner import tiny


def batch_of(inputs: Any, *, ratio: list[float]) -> Batch:
    count = len(ratio)
    label = tf.range(count, dtype=tf.int64) % 2
    labeled = Side({"weak": inputs}, label, tf.range(count, dtype=tf.int64), {})
    none = Side({}, tf.zeros([0], tf.int64), tf.zeros([0], tf.int64), {})
    return Batch(labeled, none, {"mixup": tf.constant(ratio)})


class Recorder:
    """A forward pass that keeps its inputs and returns even odds of two classes, or the given probabilities."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        self.inputs: Mapping[str, Any] = {}
        self._logits = logits_of(probabilities)

    def __call__(self, inputs: Mapping[str, Any], **_: Any) -> dict[str, tf.Tensor]:
        self.inputs = inputs
        return {"labeled": tf.convert_to_tensor(self._logits)}


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    probabilities = [0.7, 0.2, 0.1]
    losses = losses_at(Supervised(label_smoothing=0.3), {"labeled": logits_of([probabilities])}, labels=[1])
    expected = -(np.array([0.1, 0.8, 0.1]) * np.log(probabilities)).sum()
    np.testing.assert_allclose(losses.labeled["cross_entropy"].values, [expected], rtol=1e-5)
    assert not losses.unlabeled


def test_mixup_mixes_neighbors_and_each_keeps_the_larger_part() -> None:
    forward = Recorder([[0.6, 0.4]] * 4)
    inputs = tf.constant([[0.0], [10.0], [20.0], [40.0]])
    losses = Supervised(mixup=1.0).losses(forward, batch_of(inputs, ratio=[0.9, 0.2, 0.5, 1.0]), tiny.context())
    np.testing.assert_allclose(forward.inputs["labeled"], [[1.0], [8.0], [30.0], [40.0]], rtol=1e-6)
    own_label = np.array([0.9, 0.8, 0.5, 1.0])  # labels are 0, 1, 0, 1
    first_class = np.where([True, False, True, False], own_label, 1 - own_label)
    expected = -(first_class * np.log(0.6) + (1 - first_class) * np.log(0.4))
    np.testing.assert_allclose(losses.labeled["cross_entropy"].values, expected, rtol=1e-5)


def test_mixup_mixes_images_and_dicts_of_tensors() -> None:
    forward = Recorder([[0.6, 0.4]] * 2)
    inputs = {
        "image": tf.constant([[[[0.0]]], [[[8.0]]]]),
        "point": tf.constant([[1.0, 2.0], [3.0, 6.0]]),
    }
    Supervised(mixup=1.0).losses(forward, batch_of(inputs, ratio=[0.75, 0.75]), tiny.context())
    np.testing.assert_allclose(forward.inputs["labeled"]["image"], [[[[2.0]]], [[[6.0]]]])
    np.testing.assert_allclose(forward.inputs["labeled"]["point"], [[1.5, 3.0], [2.5, 5.0]])


def test_mixup_with_an_odd_batch_says_what_to_change() -> None:
    with pytest.raises(UserError, match=r"--mixup .* gives each 3\. .* even --batch_size"):
        Supervised(mixup=0.5).losses(
            Recorder([[0.5, 0.5]] * 3), batch_of(tf.zeros([3, 1]), ratio=[0.5] * 3), tiny.context()
        )


def test_mixup_asks_for_its_draws_and_no_mixup_for_none() -> None:
    assert Supervised(mixup=0.75).needs().draws == {"mixup": Beta(concentration=0.75)}
    assert not Supervised().needs().draws


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_labeled_view_is_the_only_one_asked_for(view: str) -> None:
    needs = Supervised(labeled_view=view).needs()
    assert needs.labeled_views == {view: view}
    assert not needs.unlabeled_views
