"""Columns in batches: beside their own examples, whatever the order and however many replicas."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Needs
from metassl_tf.data.examples import Examples
from metassl_tf.data.pipeline import Pipeline
from metassl_tf.data.views import PointViews
from metassl_tf.errors import UserError


def pipeline(columns: tuple[str, ...], unlabeled: int = 8) -> Pipeline:
    """Points that are their own number; the unlabeled ones have it in three columns too."""
    numbers = np.arange(20)
    points = Examples(numbers[:, np.newaxis].astype(np.float32), numbers % 2, (1,))
    pool = points.with_columns(
        {
            "number": numbers,
            "half": (numbers / 2).astype(np.float32),
            "row": np.stack([numbers, -numbers], axis=1).astype(np.float64),
        }
    )
    views = {"weak": "weak"} if unlabeled else {}
    return Pipeline(
        labeled=points,
        unlabeled=pool,
        views=PointViews(noise=0.1),
        needs=Needs(labeled_views={"weak": "weak"}, unlabeled_views=views, unlabeled_columns=columns),
        batch_size=4,
        unlabeled_batch_size=unlabeled,
        seed=0,
    )


def check(unlabeled: Any) -> None:
    number = unlabeled.columns["number"].numpy()
    np.testing.assert_array_equal(unlabeled.views["weak"].numpy()[:, 0], number)
    np.testing.assert_array_equal(unlabeled.index, number)
    np.testing.assert_array_equal(unlabeled.columns["row"], np.stack([number, -number], axis=1))


def test_columns_stand_beside_their_examples() -> None:
    made = pipeline(("number", "row"))
    batches = list(made.batches(start_step=2, strategy=tf.distribute.get_strategy()).take(3))
    for step, batch in enumerate(batches, start=2):
        assert batch.labeled.columns == {}
        assert batch.unlabeled.columns.keys() == {"number", "row"}
        assert batch.unlabeled.columns["number"].dtype == tf.int64
        assert batch.unlabeled.columns["row"].dtype == tf.float64
        check(batch.unlabeled)
        again = made.batch_function()(tf.constant(step, tf.int64))
        np.testing.assert_array_equal(again.unlabeled.columns["number"], batch.unlabeled.columns["number"])


def test_shapes_are_static() -> None:
    spec = pipeline(("number", "row")).batches(start_step=0, strategy=tf.distribute.get_strategy()).element_spec
    assert spec.unlabeled.columns["number"] == tf.TensorSpec([8], tf.int64)
    assert spec.unlabeled.columns["row"] == tf.TensorSpec([8, 2], tf.float64)


def test_replicas_share_columns_as_they_share_examples(mirrored: tf.distribute.Strategy) -> None:
    made = pipeline(("number", "row"))
    whole = next(iter(made.batches(start_step=0, strategy=tf.distribute.get_strategy())))
    parts = mirrored.experimental_local_results(next(iter(made.batches(start_step=0, strategy=mirrored))))
    assert len(parts) == 2
    for replica, part in enumerate(parts):
        check(part.unlabeled)
        for name, values in part.unlabeled.columns.items():
            np.testing.assert_array_equal(values, whole.unlabeled.columns[name][4 * replica : 4 * replica + 4])


def test_needless_columns_stay_out_of_batches() -> None:
    batch = pipeline(()).batch_function()(tf.constant(0, tf.int64))
    assert batch.unlabeled.columns == {}


@pytest.mark.parametrize("side", ["labeled", "unlabeled"])
def test_a_kind_of_view_that_there_is_not_is_named(side: str) -> None:
    """Of points too, which have but two."""
    made = pipeline(())
    needs = dataclasses.replace(made.needs, **{f"{side}_views": {"weak": "weak", "second": "mixed"}})
    expected = rf"needs {side} examples in a view 'second' of kind 'mixed'\. Expected one of: weak, strong\."
    with pytest.raises(UserError, match=expected):
        dataclasses.replace(made, needs=needs).batch_function()


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UserError, match=r"needs the column 'other' .* which have half, number, row\. Expected data"):
        pipeline(("number", "other")).batch_function()
    bare = dataclasses.replace(pipeline(("number",)), unlabeled=pipeline(()).labeled)
    with pytest.raises(UserError, match=r"needs the column 'number' .* which have none"):
        bare.batches(start_step=0, strategy=tf.distribute.get_strategy())
