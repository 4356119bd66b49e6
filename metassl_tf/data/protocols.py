"""Protocols: rules that choose the labeled examples.

A protocol sees the labels, the order and the count, and nothing else: neither the number of validation examples nor
a training seed. So the same examples are labeled whatever else a run changes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metassl_tf.errors import UserError

Indices = npt.NDArray[np.int64]

_SKIPPED = 5000


class Choice(NamedTuple):
    """What a protocol decides about the N training examples.

    Attributes:
      labeled: int64 [L], positions of the labeled examples.
      reserved: int64 [R], positions that are neither labeled nor unlabeled; validation is taken from these, or
        from all other examples when there are none.
    """

    labeled: Indices
    reserved: Indices


Protocol = Callable[[Indices, Indices, int, Sequence[str]], Choice]


def _require(count: int, available: int, where: str) -> None:
    if count > available:
        raise UserError(
            f"--num_labeled={count} asks for more labeled examples than there are. Expected at most {available}, "
            f"{where}. Lower it; 0 takes all."
        )


def ranks_in_class(labels: Indices) -> Indices:
    """How many examples of the same class stand before each; int64 [N] from int64 [N]."""
    ranks = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    return ranks


def stratified_labels(labels: Indices, order: Indices, count: int, class_names: Sequence[str]) -> Choice:
    """Labels equally many examples of every class, the first ones in the given order.

    Counts of two classes differ by one at most. A larger count keeps every example of a smaller one.

    Args:
      labels: int64 [N], -1 where unknown.
      order: int64 [N], a permutation of the positions.
      count: number of labeled examples over all classes; 0 takes all whose label is known.
      class_names: name of each class.

    Returns:
      The labeled positions, in the given order.

    Raises:
      UserError: more are asked for than exist, fewer than one per class, or a class has too few.
    """
    known = order[labels[order] >= 0]
    if not count:
        return Choice(known, known[:0])
    _require(count, len(known), "the training examples with a label")
    num_classes = len(class_names)
    if count < num_classes:
        raise UserError(
            f"--num_labeled={count} gives some of the {num_classes} classes no label at all. Expected at least "
            f"{num_classes}, one per class: --num_labeled counts the whole set. Or choose --split_protocol=first."
        )
    quota = _quota(labels[known], count, class_names)
    return Choice(known[ranks_in_class(labels[known]) < quota[labels[known]]], known[:0])


def _quota(ordered_labels: Indices, count: int, class_names: Sequence[str]) -> Indices:
    """How many of each class to label; the classes that appear first get the remainder."""
    num_classes = len(class_names)
    sizes = np.bincount(ordered_labels, minlength=num_classes)
    each, remainder = divmod(count, num_classes)
    quota = np.full(num_classes, each)
    present, first_seen = np.unique(ordered_labels, return_index=True)
    by_appearance = present[np.argsort(first_seen)]
    larger = by_appearance[sizes[by_appearance] > each]
    quota[larger[:remainder]] += 1
    short = np.flatnonzero(sizes < quota)
    if len(short) or len(larger) < remainder:
        smallest = int(np.argmin(sizes))
        most = int(sizes.min()) * num_classes + int(np.count_nonzero(sizes > sizes.min()))
        raise UserError(
            f"--num_labeled={count} asks for {count / num_classes:g} labeled examples of each of the {num_classes} "
            f"classes, but {class_names[smallest]!r} has only {sizes[smallest]}. Expected at most {most}. Lower it, "
            "add examples, pass --num_labeled=0 to label all, or choose --split_protocol=first."
        )
    return quota


def first_labels(labels: Indices, _order: Indices, count: int, _class_names: Sequence[str]) -> Choice:
    """Labels the first examples as the set is stored (Meta Pseudo Labels v1, arXiv:2003.10580, Appendix C.1).

    Args and errors are those of `stratified_labels`; neither order nor classes play a part.
    """
    known = np.flatnonzero(labels >= 0)
    _require(count, len(known), "the training examples with a label")
    return Choice(known[: count or None], known[:0])


def skip_5000_then_first_labels(labels: Indices, _order: Indices, count: int, _class_names: Sequence[str]) -> Choice:
    """Sets the first 5,000 examples apart and labels the next ones (H. Pham's thesis, Section 5.7.4).

    On CIFAR-10 with 4,000 labels and none of them among the unlabeled ones, 41,000 unlabeled examples remain.

    Args and errors are those of `stratified_labels`; neither order nor classes play a part.
    """
    known = np.flatnonzero(labels[_SKIPPED:] >= 0) + _SKIPPED
    _require(max(count, 1), len(known), f"the training examples with a label behind the first {_SKIPPED}")
    return Choice(known[: count or None], np.arange(_SKIPPED))


PROTOCOLS: dict[str, Protocol] = {
    "stratified": stratified_labels,
    "first": first_labels,
    "skip_5000_then_first": skip_5000_then_first_labels,
}
