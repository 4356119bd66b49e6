"""The Laplacian SVM solves the problem that the paper states, and finds two moons from three labels of each."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import make_moons

from tools.laplacian_svm import LaplacianSVM


def moons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 2] and their classes, +1 or -1."""
    points, labels = make_moons(count, noise=0.1, random_state=seed)
    return points, 2 * labels - 1


def kernel(left: np.ndarray, right: np.ndarray, gamma: float) -> np.ndarray:
    return np.exp(-gamma * np.square(left[:, np.newaxis] - right).sum(axis=-1))


@pytest.mark.parametrize(("ambient", "intrinsic"), [(0.01, 0.5), (0.2, 0.0), (0.05, 20.0)])
def test_solves_the_primal_problem(ambient: float, intrinsic: float) -> None:
    """Hinge loss and both penalties are minimised directly, over every coefficient, the threshold and the slack."""
    gamma, neighbors, labeled = 2.0, 3, 6
    points, classes = moons(20, seed=3)
    order = np.argsort(np.argsort(classes == 1, kind="stable") % 10, kind="stable")  # the classes take turns
    points, classes = points[order], classes[order][:labeled]
    count = len(points)
    near = np.argsort(np.square(points[:, np.newaxis] - points).sum(axis=-1), axis=1)[:, 1 : neighbors + 1]
    tied = np.zeros((count, count))
    tied[np.arange(count)[:, np.newaxis], near] = 1.0
    tied = np.maximum(tied, tied.T)
    laplacian = np.diag(tied.sum(axis=1)) - tied
    gram = kernel(points, points, gamma)
    penalty = ambient * gram + intrinsic / count**2 * gram @ laplacian @ gram

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, slack = values[:count], values[count + 1 :]
        slope = np.concatenate([2.0 * penalty @ alpha, [0.0], np.full(labeled, 1.0 / labeled)])
        return slack.mean() + alpha @ penalty @ alpha, slope

    # y (f + b) + slack >= 1 and slack >= 0
    rows = np.hstack([classes[:, np.newaxis] * gram[:labeled], classes[:, np.newaxis], np.eye(labeled)])
    found = minimize(
        objective,
        np.concatenate([np.zeros(count + 1), np.ones(labeled)]),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda values: rows @ values - 1.0, "jac": lambda _: rows},
        bounds=[(None, None)] * (count + 1) + [(0.0, None)] * labeled,
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    assert found.success, found.message
    places = np.random.default_rng(0).uniform(-1.5, 2.5, size=(50, 2))
    expected = kernel(places, points, gamma) @ found.x[:count] + found.x[count]
    machine = LaplacianSVM(gamma=gamma, neighbors=neighbors, ambient=ambient, intrinsic=intrinsic)
    margin = machine.fit(points[:labeled], classes, points[labeled:])
    np.testing.assert_allclose(margin(places), expected, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_separates_two_moons_with_three_labels_each() -> None:
    points, classes = moons(2000, seed=0)
    chosen = np.concatenate([np.flatnonzero(classes == label)[:3] for label in (-1, 1)])
    rest = np.setdiff1d(np.arange(len(points)), chosen)
    places, truth = moons(1000, seed=1)

    def accuracy(machine: LaplacianSVM) -> float:
        margin = machine.fit(points[chosen], classes[chosen], points[rest])
        return float(np.mean(np.sign(margin(places)) == truth))

    assert accuracy(LaplacianSVM()) > 0.99
    assert accuracy(LaplacianSVM(intrinsic=0.0)) < 0.9  # it is the graph that does it
