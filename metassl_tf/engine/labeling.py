"""A trained teacher labels the training examples of a run, without noise, and its distributions are stored."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax
from tqdm import tqdm

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.engine.load import load_split_examples
from metassl_tf.engine.predictor import Predictor, of_task, predict_batches
from metassl_tf.engine.stored_labels import Contents, Distributions, LabelStore
from metassl_tf.engine.workdir import disk_errors
from metassl_tf.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labeled:
    """What was stored.

    Attributes:
      contents: whose labels of what.
      counts: number of unlabeled examples of which each class is the most probable one.
      accuracy: share of the unlabeled examples whose most probable class is right; None where no truth is known.
    """

    contents: Contents
    counts: tuple[int, ...]
    accuracy: float | None

    def describe(self) -> str:
        """The lines a user sees."""
        lines = [f"labeled        {self.contents.num_labeled:,}", f"unlabeled      {self.contents.num_unlabeled:,}"]
        lines += [f"  {name:<12} {count:,}" for name, count in zip(self.contents.class_names, self.counts, strict=True)]
        share = "not known" if self.accuracy is None else f"{self.accuracy:.2%} of the unlabeled ones"
        return "\n".join([*lines, f"right          {share}"])


def label_examples(config: Config, teacher: Path) -> Labeled:
    """Stores a teacher's distribution for every labeled and unlabeled example; goes on where it was stopped.

    The images are as they are and the network is in inference mode: the teacher of Noisy Student has no noise.

    Args:
      config: of the run that is to learn from the labels; its `--stored_labels` says where to.
      teacher: a workdir, an export or a Keras file.

    Returns:
      What was stored.

    Raises:
      UserError: the data or the teacher are missing or do not fit each other, or the folder holds other labels.
    """
    if not config.data.stored_labels:
        raise UserError(
            "--stored_labels is missing. Expected the folder that the labels are to be written to, and the settings "
            "of the run that is to learn from them, such as --flagfile=flags/digits/noisy_student_40.flags."
        )
    dataset, split, (labeled, _, _, unlabeled, _) = load_split_examples(config)
    predictor = of_task(teacher, flag="--teacher", shape=dataset.train.shape, class_names=dataset.class_names)
    store = LabelStore(Path(config.data.stored_labels))
    contents = Contents(
        split=split.hash,
        parameters=split.parameters,
        teacher=_fingerprint(teacher),
        class_names=predictor.interface.class_names,
        num_labeled=len(labeled),
        num_unlabeled=len(unlabeled),
    )
    missing = store.begin(contents)
    done = contents.num_parts - len(missing)
    with (
        disk_errors(store.folder),
        tqdm(total=contents.num_parts, initial=done, unit=" parts", disable=None) as progress,
    ):
        for part in missing:
            own = _members((labeled, unlabeled), contents.places(part))
            store.write(part, _distributions(predictor, own, batch_size=config.run.eval_batch_size))
            progress.update()
        store.finish()
    said = store.read(split, dataset.class_names).unlabeled.argmax(axis=1)
    counts = np.bincount(said, minlength=dataset.num_classes)
    known = unlabeled.labels >= 0
    return Labeled(
        contents=dataclasses.replace(contents, class_names=dataset.class_names),
        counts=tuple(counts.tolist()),
        accuracy=float(np.mean(said[known] == unlabeled.labels[known])) if known.any() else None,
    )


def _members(lists: Sequence[Examples], places: slice) -> list[Examples]:
    """What lists that stand behind each other have at these places."""
    members, start = [], 0
    for examples in lists:
        members.append(examples.take(slice(max(places.start - start, 0), max(places.stop - start, 0))))
        start += len(examples)
    return members


def _distributions(predictor: Predictor, lists: Sequence[Examples], *, batch_size: int) -> Distributions:
    logits = [
        batch[predictor.exported]
        for examples in lists
        for batch in predict_batches(predictor, examples, batch_size=batch_size)
    ]
    return softmax(np.concatenate(logits), axis=1).astype(np.float32)


def _fingerprint(teacher: Path) -> str:
    """sha256 of the files that hold a saved model's weights."""
    export = teacher / "export" if (teacher / "export").is_dir() else teacher
    paths = sorted((export / "variables").iterdir()) if export.is_dir() else [export]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
