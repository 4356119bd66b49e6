"""Every algorithm of the table, as it is by default and with other hyperparameters."""

import pytest

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Algorithm
from tests.algorithms.cases import first_alternatives


@pytest.fixture(params=ALGORITHMS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["defaults", "alternatives"])
def algorithm(name: str, request: pytest.FixtureRequest) -> Algorithm:
    return ALGORITHMS[name](**(first_alternatives(name) if request.param == "alternatives" else {}))
