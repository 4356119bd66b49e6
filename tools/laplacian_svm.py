"""The Laplacian SVM on points (Belkin, Niyogi and Sindhwani, Manifold Regularization, JMLR 7, 2006, Section 4.4).

It is the hinge loss of l labeled points with two penalties, one on the function as such and one on how much it changes
between neighbors among all l + u points (`ambient` and `intrinsic`, the paper's gamma_A and gamma_I):

    min over f in the kernel's space and b:   1/l sum_i max(0, 1 - y_i (f(x_i) + b)) + gamma_A |f|^2
                                              + gamma_I / (u + l)^2  f^T L f,     f = (f(x_1), .., f(x_{l + u}))

Nothing is trained step by step: f = sum_i alpha_i K(x_i, .) over all points, with

    alpha = (2 gamma_A I + 2 gamma_I / (u + l)^2 L K)^-1 J^T Y beta,      J = [I 0], labeled points first,

where beta solves the dual of an ordinary support vector machine of the l labeled points, whose kernel matrix is
J K (2 gamma_A I + 2 gamma_I / (u + l)^2 L K)^-1 J^T and whose multipliers are at most 1 / l: scikit-learn does that.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph
from sklearn.svm import SVC

Margin = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]
"""Points [N, D] -> float64 [N], above 0 for class +1."""

_TOLERANCE = 1e-8  # of the dual, which has as many variables as there are labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaplacianSVM:
    """What a Laplacian support vector machine is fitted with.

    The defaults are for two moons of 1,000 points each, and were chosen by how well they separate them: a kernel about
    as wide as the noise of the points, and so little ambient regularisation that labels reach the ends of a moon along
    the graph. With fewer points, neighbors are further away and begin to tie the moons together.

    Attributes:
      gamma: of the kernel exp(-gamma |x - z|^2); per squared unit of the points.
      neighbors: a point is tied, with weight 1, to its nearest so many and to those that count it among theirs.
      ambient: gamma_A, of the function in the kernel's space.
      intrinsic: gamma_I, of its changes along the graph.
    """

    gamma: float = 30.0
    neighbors: int = 10
    ambient: float = 1e-4
    intrinsic: float = 1e5

    def fit(self, labeled: npt.NDArray[Any], labels: npt.NDArray[Any], unlabeled: npt.NDArray[Any]) -> Margin:
        """Solves the problem, in float64; cubic in the number of points.

        Args:
          labeled: [L, D].
          labels: +1 or -1, both present, [L].
          unlabeled: [U, D].

        Returns:
          f + b.
        """
        points = np.concatenate([labeled, unlabeled]).astype(np.float64)
        count, total = len(labeled), len(points)
        nearest = kneighbors_graph(points, self.neighbors)
        laplacian = sparse.csgraph.laplacian(nearest.maximum(nearest.T))  # L
        kernel = rbf_kernel(points, gamma=self.gamma)  # K
        penalty = 2.0 * self.intrinsic / total**2 * (laplacian @ kernel)
        penalty[np.diag_indices(total)] += 2.0 * self.ambient
        spread = linalg.solve(penalty, np.eye(total, count))  # (..)^-1 J^T, [L + U, L]
        machine = SVC(kernel="precomputed", C=1.0 / count, tol=_TOLERANCE).fit(kernel[:count] @ spread, labels)
        coefficients = spread[:, machine.support_] @ machine.dual_coef_[0]  # alpha; its factor is Y beta

        def margin(at: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            values: npt.NDArray[np.float64] = rbf_kernel(at.astype(np.float64), points, gamma=self.gamma) @ coefficients
            return values + machine.intercept_[0]

        return margin
