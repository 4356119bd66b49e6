"""A teacher's distribution for every training example of a split, in a folder.

`labels.json` says what is in the folder: whose labels of what, and the sha256 of each part. The parts are plain .npy
files, `part-00000.npy` and so on, float32 [at most 8,192, classes]: the labeled examples, then the unlabeled ones, in
the split's order. The digests are written last, so that a folder without them is one whose making was stopped.
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from metassl_tf.data.splits import Split
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError

PART_SIZE = 8192
_AGAIN = "Give the command of metassl_tf.label again: it makes what is missing."
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
        return slice(part * PART_SIZE, min((part + 1) * PART_SIZE, self.num_labeled + self.num_unlabeled))


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

        A folder without a part has nothing to lose: it becomes that of these contents. Parts without an index are
        refused, since nothing tells whose labels of what they are.

        Args:
          contents: what is to be stored.

        Returns:
          The parts that are missing or damaged.

        Raises:
          UserError: the folder holds other labels or other files, or cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # What begins with a dot may be what a kill has left of a file.
            others = {path.name for path in self.folder.iterdir() if path != self._index and path.name[0] != "."}
            if not others:
                self._write_index(contents, None)
            elif not self._index.exists():
                raise UserError(
                    f"--stored_labels={self.folder} holds {min(others)} and no {self._index.name}. Expected a new or "
                    "empty folder, or one whose making the same command began: choose another."
                )
        except OSError as error:
            raise UserError(
                f"--stored_labels={self.folder} cannot be made or written: {error.strerror}. Expected a folder "
                "that can be written: choose another."
            ) from error
        present, digests = self._read_index()
        if present != contents:
            raise UserError(
                f"--stored_labels={self.folder} holds labels {_difference(present, contents)}. Expected a new folder, "
                "or one whose making the same command began: choose another."
            )
        return self._damaged(present, digests)

    def write(self, part: int, distributions: Distributions) -> None:
        """Stores a part; it appears whole or not at all."""
        # In memory first: what NumPy writes to a file itself may end early on a full disk without a word.
        content = _to_bytes(distributions)
        write_atomically(self._path(part), lambda file: file.write(content))

    def finish(self) -> None:
        """Stores the digests of all parts, which makes the folder complete; one that is stays untouched."""
        contents, present = self._read_index()
        digests = [_digest(self._path(part).read_bytes()) for part in range(contents.num_parts)]
        if digests != present:
            self._write_index(contents, digests)

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
        self._check_examples(contents, split, class_names)
        damaged = self._damaged(contents, digests)
        if digests is None:
            made = contents.num_parts - len(damaged)
            raise UserError(
                f"--stored_labels={self.folder} is not complete: its making was stopped with {made} of "
                f"{contents.num_parts} parts. {_AGAIN}"
            )
        if damaged:
            raise UserError(f"{self._path(damaged[0])} is missing, or was changed after it was written. {_AGAIN}")
        both = np.concatenate([np.load(self._path(part), allow_pickle=False) for part in range(contents.num_parts)])
        if contents.class_names != class_names:
            both = both[:, [contents.class_names.index(name) for name in class_names]]
        return Stored(both[: contents.num_labeled], both[contents.num_labeled :], _digest("".join(digests).encode()))

    def _check_examples(self, contents: Contents, split: Split, class_names: tuple[str, ...]) -> None:
        counts = (len(split.labeled), len(split.unlabeled))
        if contents.split != split.hash or (contents.num_labeled, contents.num_unlabeled) != counts:
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

    def _damaged(self, contents: Contents, digests: list[str] | None) -> list[int]:
        """The parts that are missing, or not what they were when the folder became complete, or begun and not whole."""
        return [part for part in range(contents.num_parts) if not self._is_whole(part, contents, digests)]

    def _is_whole(self, part: int, contents: Contents, digests: list[str] | None) -> bool:
        try:
            stored = self._path(part).read_bytes()
        except OSError:
            return False
        if digests is not None:
            return _digest(stored) == digests[part]
        places = contents.places(part)
        # Compared instead of read: at a damaged header NumPy raises all kinds of errors.
        like = np.zeros((places.stop - places.start, len(contents.class_names)), np.float32)
        return stored[: -like.nbytes] == _to_bytes(like)[: -like.nbytes]

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:05}.npy"

    def _write_index(self, contents: Contents, digests: list[str] | None) -> None:
        text = json.dumps({**dataclasses.asdict(contents), "parts": digests}, indent=2, ensure_ascii=False)
        write_atomically(self._index, lambda file: file.write(f"{text}\n".encode()))

    def _read_index(self) -> tuple[Contents, list[str] | None]:
        try:
            return _from_json(self._index.read_bytes())
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._index} is damaged: {type(error).__name__} {error}. Restore it from a copy, or label again "
                "into another folder."
            ) from error


def _to_bytes(distributions: Distributions) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, distributions, allow_pickle=False)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_json(text: bytes) -> tuple[Contents, list[str] | None]:
    """Reads what `LabelStore._write_index` wrote, and checks that it is of that kind."""
    values = json.loads(text)
    kinds: dict[str, type] = {field.name: str for field in dataclasses.fields(Contents)}
    kinds |= {"class_names": list, "num_labeled": int, "num_unlabeled": int}
    found = {name: values[name] for name in kinds}
    for name, value in found.items():
        if not isinstance(value, kinds[name]):
            raise TypeError(f"{name} is {value!r}")
    _flat(found["parameters"])
    if not all(isinstance(name, str) for name in found["class_names"]):
        raise TypeError(f"class_names are {found['class_names']!r}")
    contents = Contents(**{**found, "class_names": tuple(found["class_names"])})
    digests = values["parts"]
    if digests is not None and (not isinstance(digests, list) or len(digests) != contents.num_parts):
        raise ValueError(f"parts are not {contents.num_parts} digests")
    return contents, digests


def _difference(present: Contents, wanted: Contents) -> str:
    if present.split != wanted.split:
        return _other_split(present.parameters, wanted.parameters)
    if present.teacher != wanted.teacher:
        return "of another teacher, or of other weights of it"
    return f"of the classes {', '.join(present.class_names)}, here they are {', '.join(wanted.class_names)}"


def _other_split(present: str, wanted: str) -> str:
    """Says in what the splits differ: the first of the settings, or else the data."""
    theirs, ours = _flat(present), _flat(wanted)
    for name in ours:
        if theirs.get(name) != ours[name] and name != "fingerprint":
            return f"of other examples: there {name} is {theirs.get(name)}, here it is {ours[name]}"
    return "of data that have changed since"


def _flat(parameters: str) -> dict[str, Any]:
    """The settings that a split was made from, those that change examples among the others."""
    values = json.loads(parameters)
    return {**{name: value for name, value in values.items() if name != "changes"}, **values["changes"]}
