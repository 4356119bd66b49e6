"""The picture of the solvers: errors that fall as they should, and a file."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import run_here
from tools import solver_figure


@pytest.fixture(scope="module")
def problem() -> solver_figure.Problem:
    return solver_figure.digits()


def test_optimum_is_one(problem: solver_figure.Problem) -> None:
    slope = solver_figure.gradient(problem.training, [problem.optimum()])[0]
    assert np.abs(slope).max() < 1e-8


def test_errors_fall_with_the_number_of_terms(problem: solver_figure.Problem, tmp_path: Path) -> None:
    curves = solver_figure.errors(problem, (2, 20))
    assert curves["identity"][2] == curves["identity"][20] > 0.1
    for name in ("conjugate gradients", "Neumann, unrolled: step size 1", "stochastic, step size 0.1"):
        assert curves[name][20] < curves[name][2], name
    assert curves["conjugate gradients"][20] < 0.1 * curves["Neumann, unrolled: step size 1"][20]
    path = tmp_path / "solvers.png"
    solver_figure.draw(curves, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_missing_folder_is_explained() -> None:
    assert "there is no folder no/such" in str(run_here("../tools/convergence", ["--output=no/such/x.png"]))
