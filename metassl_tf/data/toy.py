"""Two-dimensional sets of scikit-learn: a decision boundary that can be drawn, and a run that takes seconds.

Meta Pseudo Labels v1 (arXiv:2003.10580, Figure 1) has 1,000 points on each moon, 3 of them labeled; the paper on
per-example weights (arXiv:2007.01293, Section 4.1) has linearly separable data, circles and moons with 10 labeled,
30 validation and 1,000 unlabeled points.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
from sklearn import datasets

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, Source
from metassl_tf.errors import UserError
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Points(Source):
    """What the three sets share. The points depend on these settings alone, not on who is labeled."""

    _name: ClassVar[str]
    _class_names: ClassVar[tuple[str, str]]

    noise: float = setting(0.1, "Standard deviation of the noise on every point.", minimum=0.0)
    num_train: int = setting(2000, "Training points, labeled and unlabeled.", minimum=2)
    num_test: int = setting(1000, "Test points.", minimum=0)
    data_seed: int = setting(0, "Seed of the points.", minimum=0, maximum=2**32 - 1)

    @abc.abstractmethod
    def _draw(self, count: int, random: np.random.RandomState) -> tuple[Any, Any]:
        """Points [N, 2] and labels [N]."""

    def _examples(self, count: int, random: np.random.RandomState) -> Examples:
        # scikit-learn refuses to draw no points at all.
        points, labels = self._draw(max(count, 2), random)
        return Examples(points[:count].astype(np.float32), labels[:count].astype(np.int64), (2,))

    def load(self, request: LoadRequest) -> Dataset:
        """Draws the points: float32 [N, 2].

        Raises:
          UserError: an image size or a number of channels was asked for.
        """
        if request.image_size or request.channels:
            raise UserError(
                f"--dataset={self._name} holds points, which have neither --image_size nor --channels. "
                f"Received {request.image_size} and {request.channels}: leave them out."
            )
        random = np.random.RandomState(self.data_seed)
        return Dataset(
            name=f"{self._name} noise={self.noise} data_seed={self.data_seed}",
            train=self._examples(self.num_train, random),
            test=self._examples(self.num_test, random),
            class_names=self._class_names,
            modality="points",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoMoons(_Points):
    """Two interleaving half circles."""

    _name: ClassVar[str] = "two_moons"
    _class_names: ClassVar[tuple[str, str]] = ("upper", "lower")

    def _draw(self, count: int, random: np.random.RandomState) -> tuple[Any, Any]:
        return datasets.make_moons(count, noise=self.noise, random_state=random)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circles(_Points):
    """A circle of radius 1 around one of half that radius."""

    _name: ClassVar[str] = "circles"
    _class_names: ClassVar[tuple[str, str]] = ("outer", "inner")

    def _draw(self, count: int, random: np.random.RandomState) -> tuple[Any, Any]:
        return datasets.make_circles(count, noise=self.noise, factor=0.5, random_state=random)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(_Points):
    """Two Gaussian clouds around (-1, -1) and (1, 1), which a line separates."""

    _name: ClassVar[str] = "linear"
    _class_names: ClassVar[tuple[str, str]] = ("negative", "positive")

    noise: float = setting(0.4, "Standard deviation of the noise on every point.", minimum=0.0)

    def _draw(self, count: int, random: np.random.RandomState) -> tuple[Any, Any]:
        centers = [(-1, -1), (1, 1)]
        return datasets.make_blobs(count, centers=centers, cluster_std=self.noise, random_state=random)
