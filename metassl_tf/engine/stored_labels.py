"""A teacher's distribution for every training example of a split, in a folder; and which unlabeled ones to keep.

`labels.json` says what is in the folder: whose labels of what, and the sha256 of each part. The parts are plain .npy
files, `part-00000.npy` and so on, float32 [at most 8,192, classes]: the labeled examples, then the unlabeled ones, in
the split's order. The digests are written last, so that a folder without them is one whose making was stopped.
"""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from metassl_tf.data.protocols import Indices
from metassl_tf.data.splits import Split
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

PART_SIZE = 8192
Distributions = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Whose labels of what.

    Attributes:
      split: hash of the split.
      parameters: JSON of what the split was made from.
      teacher: what tells the teacher's weights from others.
      class_names: in the order of the distributions.
      num_labeled: labeled examples; their distributions come first.
      num_unlabeled: unlabeled ones.
    """

    split: str
    parameters: str
    teacher: str
    class_names: tuple[str, ...]
    num_labeled: int
    num_unlabeled: int

    @property
    def num_parts(self) -> int:
        """Number of files."""
        return -(-(self.num_labeled + self.num_unlabeled) // PART_SIZE)

    def places(self, part: int) -> slice:
        """Where a part's examples are among all: the labeled ones, then the unlabeled ones."""
        return slice(part * PART_SIZE, (part + 1) * PART_SIZE)


class Stored(NamedTuple):
    """Distributions of the labeled examples [L, classes] and of the unlabeled ones [U, classes], and their digest."""

    labeled: Distributions
    unlabeled: Distributions
    digest: str


class LabelStore:
    """A folder of distributions.

    Attributes:
      folder: where.
    """

    def __init__(self, folder: Path) -> None:
        """Names the folder; makes nothing."""
        self.folder = folder
        self._index = folder / "labels.json"

    def begin(self, contents: Contents) -> list[int]:
        """Makes the folder for these contents, or recognises it as one to go on with.

        Args:
          contents: what is to be stored.

        Returns:
          The parts that are missing.

        Raises:
          UserError: the folder holds other labels, or cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._index.exists():
                self._write_index(contents, None)
        except OSError as error:
            raise UserError(
                f"--stored_labels={self.folder} cannot be made or written: {error.strerror}. Expected a folder "
                "that can be written: choose another."
            ) from error
        present, _ = self._read_index()
        if present != contents:
            raise UserError(
                f"--stored_labels={self.folder} holds labels {_difference(present, contents)}. Expected a new folder, "
                "or one whose making the same command began: choose another."
            )
        return [part for part in range(contents.num_parts) if not self._path(part).exists()]

    def write(self, part: int, distributions: Distributions) -> None:
        """Stores a part; it appears whole or not at all."""
        write_atomically(self._path(part), lambda file: np.save(file, distributions, allow_pickle=False))

    def finish(self) -> None:
        """Stores the digests of all parts, which makes the folder complete."""
        contents, _ = self._read_index()
        self._write_index(contents, [self._digest(part) for part in range(contents.num_parts)])

    def read(self, split: Split, class_names: tuple[str, ...]) -> Stored:
        """Reads what was stored for a split.

        Args:
          split: of the run that learns from the labels.
          class_names: of that run; the distributions come in their order.

        Returns:
          The distributions.

        Raises:
          UserError: the labels are missing, incomplete, changed, or of other examples or classes.
        """
        if not self._index.is_file():
            raise UserError(
                f"--stored_labels={self.folder} holds no {self._index.name}. Expected a folder that python -m "
                "metassl_tf.label has filled: run it with the settings of this run and --teacher."
            )
        contents, digests = self._read_index()
        if contents.split != split.hash:
            raise UserError(
                f"--stored_labels={self.folder} holds labels {_other_split(contents.parameters, split.parameters)}. "
                "Expected labels of this run's examples: give both commands the same settings of the data, or label "
                "again into another folder."
            )
        if set(contents.class_names) != set(class_names):
            raise UserError(
                f"--stored_labels={self.folder} tells apart {', '.join(contents.class_names)}; here the classes are "
                f"{', '.join(class_names)}. Expected the same."
            )
        if digests is None:
            missing = [part for part in range(contents.num_parts) if not self._path(part).exists()]
            raise UserError(
                f"--stored_labels={self.folder} is not complete: {len(missing)} of {contents.num_parts} parts are "
                "missing. Give the command of metassl_tf.label again; it goes on where it was stopped."
            )
        changed = [part for part, digest in enumerate(digests) if self._digest(part) != digest]
        if changed:
            raise UserError(
                f"{self._path(changed[0])} is missing or was changed after it was written: its sha256 does not fit. "
                "Restore it from a copy, or label again into another folder."
            )
        order = [contents.class_names.index(name) for name in class_names]
        parts = [np.load(self._path(part), allow_pickle=False) for part in range(contents.num_parts)]
        both = np.concatenate(parts)[:, order]
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        return Stored(both[: contents.num_labeled], both[contents.num_labeled :], digest)

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:05}.npy"

    def _digest(self, part: int) -> str:
        path = self._path(part)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _write_index(self, contents: Contents, digests: list[str] | None) -> None:
        text = json.dumps({**dataclasses.asdict(contents), "parts": digests}, indent=2, ensure_ascii=False)
        write_atomically(self._index, lambda file: file.write(f"{text}\n".encode()))

    def _read_index(self) -> tuple[Contents, list[str] | None]:
        try:
            values = json.loads(self._index.read_bytes())
            digests = values.pop("parts")
            return Contents(**{**values, "class_names": tuple(values["class_names"])}), digests
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._index} is damaged: {type(error).__name__} {error}. Restore it from a copy, or label again "
                "into another folder."
            ) from error


def _difference(present: Contents, wanted: Contents) -> str:
    if present.split != wanted.split:
        return _other_split(present.parameters, wanted.parameters)
    if present.teacher != wanted.teacher:
        return "of another teacher, or of other weights of it"
    return f"of the classes {', '.join(present.class_names)}, here they are {', '.join(wanted.class_names)}"


def _other_split(present: str, wanted: str) -> str:
    """Says in what the splits differ: the first of the settings, or else the data."""
    theirs, ours = (_flat(json.loads(text)) for text in (present, wanted))
    for name in ours:
        if theirs.get(name) != ours[name] and name != "fingerprint":
            return f"of other examples: there {name} is {theirs.get(name)}, here it is {ours[name]}"
    return "of data that have changed since"


def _flat(parameters: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in parameters.items() if name != "changes"}, **parameters["changes"]}


def choose(distributions: Distributions, *, per_class: int, balance: bool) -> Indices:
    """Chooses unlabeled examples by what a teacher said of them (Noisy Student, section 2; v1, section 4.2).

    Args:
      distributions: float32 [U, classes].
      per_class: of the examples of which a class is the most probable one, so many of the most confident are kept for
        each class; 0 keeps all.
      balance: repeat the examples of a class until it has `per_class` of them, or as many as the largest class; the
        most confident ones are repeated first.

    Returns:
      Places in the list, ascending, int64 [chosen]; repeated ones follow each other.

    Raises:
      UserError: more are asked for than there are.
    """
    if per_class > len(distributions):
        raise UserError(
            f"--most_confident_per_class={per_class} asks for more examples of each class than the "
            f"{len(distributions)} unlabeled ones in all. Lower it, or label a larger --unlabeled_dataset."
        )
    predicted, confidence = distributions.argmax(axis=1), distributions.max(axis=1)
    members = []
    for label in range(distributions.shape[1]):
        own = np.flatnonzero(predicted == label)
        own = own[np.argsort(-confidence[own], kind="stable")]
        members.append(own[: per_class or None])
    sizes = np.array([len(own) for own in members])
    wanted = per_class or sizes.max()
    _warn_of_small_classes(sizes, wanted, asked=bool(per_class) or balance, balance=balance)
    if balance:
        members = [np.resize(own, wanted) if len(own) else own for own in members]
    return np.sort(np.concatenate(members))


def _warn_of_small_classes(sizes: Indices, wanted: int, *, asked: bool, balance: bool) -> None:
    if not asked:
        return
    if not sizes.all():
        _logger.warning("The teacher finds no example of %d classes among the unlabeled ones.", np.sum(sizes == 0))
    short = np.sum((sizes < wanted) & (sizes > 0))
    if short:
        remedy = "they are repeated" if balance else "--balance_classes would repeat them"
        _logger.warning("%d classes have fewer than %d unlabeled examples: %s.", short, wanted, remedy)
