"""What every algorithm in the table says of itself: settings, papers and needs."""

import dataclasses
import importlib
import inspect
import json
import pkgutil

import pytest

from metassl_tf import algorithms
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Algorithm, Beta
from metassl_tf.settings import check_settings
from tests.algorithms.cases import CASES


def test_every_algorithm_has_a_case() -> None:
    assert CASES.keys() == ALGORITHMS.keys()


def test_every_module_is_in_the_table() -> None:
    modules = {module.name for module in pkgutil.iter_modules(algorithms.__path__)} - {"base", "batch", "metrics"}
    assert {algorithm.__module__.rpartition(".")[2] for algorithm in ALGORITHMS.values()} == modules


def test_every_hyperparameter_has_alternatives_in_its_range(name: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(ALGORITHMS[name])}
    assert CASES[name].alternatives.keys() == fields.keys()
    check_settings(ALGORITHMS[name]())
    for field, values in CASES[name].alternatives.items():
        assert values
        assert fields[field].default not in values
        for value in values:
            check_settings(ALGORITHMS[name](**{field: value}))


def test_settings_are_keyword_only_frozen_and_explained(name: str) -> None:
    cls = ALGORITHMS[name]
    for field in dataclasses.fields(cls):
        assert field.kw_only
        assert field.metadata["help"].endswith(".")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cls(), field.name, field.default)


def test_settings_survive_a_round_trip(algorithm: Algorithm) -> None:
    assert type(algorithm)(**json.loads(json.dumps(dataclasses.asdict(algorithm)))) == algorithm


def test_file_says_which_paper_and_where_it_departs(name: str) -> None:
    text = importlib.import_module(ALGORITHMS[name].__module__).__doc__ or ""
    assert "| paper" in text
    assert inspect.getdoc(ALGORITHMS[name])


def test_needs_are_those_a_pipeline_can_meet(algorithm: Algorithm) -> None:
    needs = algorithm.needs()
    assert needs.labeled_views
    assert {*needs.labeled_views.values(), *needs.unlabeled_views.values()} <= {"weak", "strong"}
    assert needs.unlabeled_views or not needs.unlabeled_columns
    assert all(isinstance(draw, Beta) and draw.concentration > 0 for draw in needs.draws.values())
