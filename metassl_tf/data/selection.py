"""Which unlabeled examples to learn from, by what a teacher said of them.

Noisy Student (Xie et al., arXiv:1911.04252, section 2) and version 1 of Meta Pseudo Labels (arXiv:2003.10580v1, section
4.2) keep the images of each class of which their teacher is most confident; Noisy Student repeats those of classes that
have too few.

Version 1 keeps "K images with highest probabilities for each class"; that is read as of the images whose most probable
class it is, so that no image stands for two classes. Departs from Noisy Student: which ones are repeated is not drawn,
the most confident come first, and no image is left out for low confidence alone.
"""

import logging

import numpy as np
import numpy.typing as npt

from metassl_tf.data.protocols import Indices
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)


def check_count(per_class: int, available: int) -> None:
    """Checks that so many examples of a class can be had at all.

    Raises:
      UserError: there are fewer unlabeled examples.
    """
    if per_class > available:
        raise UserError(
            f"--most_confident_per_class={per_class} asks for more examples of each class than the {available} "
            "unlabeled ones in all. Lower it, or label a larger --unlabeled_dataset."
        )


def most_confident(distributions: npt.NDArray[np.floating], *, per_class: int, balance: bool) -> Indices:
    """Chooses unlabeled examples by a teacher's distributions.

    Args:
      distributions: float [U, classes].
      per_class: of the examples of which a class is the most probable one, so many of the most confident are kept for
        each class; 0 keeps all.
      balance: repeat the examples of a class until it has `per_class` of them, or as many as the largest class; the
        most confident ones are repeated first.

    Returns:
      Places in the list, ascending, int64 [chosen]; repeated ones follow each other.

    Raises:
      UserError: more are asked for than there are.
    """
    check_count(per_class, len(distributions))
    predicted, confidence = distributions.argmax(axis=1), distributions.max(axis=1)
    members = []
    for label in range(distributions.shape[1]):
        own = np.flatnonzero(predicted == label)
        own = own[np.argsort(-confidence[own], kind="stable")]
        members.append(own[: per_class or None])
    sizes = np.array([len(own) for own in members])
    wanted = per_class or sizes.max()
    if per_class or balance:
        _warn_of_small_classes(sizes, wanted, balance=balance)
    if balance:
        members = [np.resize(own, wanted) if len(own) else own for own in members]
    return np.sort(np.concatenate(members))


def _warn_of_small_classes(sizes: Indices, wanted: int, *, balance: bool) -> None:
    if not sizes.all():
        _logger.warning("The teacher finds no example of %d classes among the unlabeled ones.", np.sum(sizes == 0))
    short = np.sum((sizes < wanted) & (sizes > 0))
    if short:
        remedy = "they are repeated" if balance else "--balance_classes would repeat them"
        _logger.warning("%d classes have fewer than %d unlabeled examples: %s.", short, wanted, remedy)
