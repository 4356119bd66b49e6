"""A trained teacher labels the training examples of a run, without noise, and its distributions are stored."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax
from tqdm import tqdm

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.data.selection import check_count
from metassl_tf.data.splits import load_split
from metassl_tf.engine.load import Loaded, load_split_examples
from metassl_tf.engine.predictor import Predictor, of_task, predict_batches
from metassl_tf.engine.stored_labels import Contents, Distributions, LabelStore
from metassl_tf.engine.workdir import disk_errors
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labeled:
    """What was stored.

    Attributes:
      contents: whose labels of what.
      counts: class -> number of unlabeled examples of which it is the most probable one.
      accuracy: share of the unlabeled examples whose most probable class is right; None where no truth is known.
    """

    contents: Contents
    counts: dict[str, int]
    accuracy: float | None

    def describe(self) -> str:
        """The lines a user sees."""
        lines = [f"labeled        {self.contents.num_labeled:,}", f"unlabeled      {self.contents.num_unlabeled:,}"]
        lines += [f"  {name:<12} {count:,}" for name, count in self.counts.items()]
        share = "not known" if self.accuracy is None else f"{self.accuracy:.2%} of the unlabeled ones"
        return "\n".join([*lines, f"right          {share}"])


def label_examples(config: Config, teacher: Path) -> Labeled:
    """Stores a teacher's distribution for every labeled and unlabeled example; goes on where it was stopped.

    The images are as they are and the network is in inference mode: the teacher of Noisy Student has no noise. Its
    weights are those that a run exports, their moving average.

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
    loaded = load_split_examples(config)
    dataset, unlabeled = loaded.dataset, loaded.examples.unlabeled
    if not len(unlabeled):
        raise UserError(
            "There are no unlabeled examples to label. Expected some beside the labeled ones: lower --num_labeled, or "
            "give --unlabeled_dataset."
        )
    check_count(config.data.most_confident_per_class, len(unlabeled))
    predictor = of_task(teacher, flag="--teacher", shape=dataset.train.shape, class_names=dataset.class_names)
    _warn_of_overlap(teacher, loaded)
    contents = Contents(
        split=loaded.split.hash,
        parameters=loaded.split.parameters,
        teacher=fingerprint(teacher),
        class_names=predictor.interface.class_names,
        num_labeled=len(loaded.examples.labeled),
        num_unlabeled=len(unlabeled),
    )
    store = LabelStore(Path(config.data.stored_labels))
    _fill(store, contents, predictor, loaded, batch_size=config.run.eval_batch_size)
    said = store.read(loaded.split, dataset.class_names).unlabeled.argmax(axis=1)
    known = unlabeled.labels >= 0
    return Labeled(
        contents=contents,
        counts=dict(zip(dataset.class_names, np.bincount(said, minlength=dataset.num_classes).tolist(), strict=True)),
        accuracy=float(np.mean(said[known] == unlabeled.labels[known])) if known.any() else None,
    )


def _fill(store: LabelStore, contents: Contents, predictor: Predictor, loaded: Loaded, *, batch_size: int) -> None:
    """Makes what is missing in a store."""
    missing = store.begin(contents)
    lists = (loaded.examples.labeled, loaded.examples.unlabeled)
    done = contents.num_parts - len(missing)
    with (
        disk_errors(store.folder, kept="What has been labeled is intact."),
        tqdm(total=contents.num_parts, initial=done, unit=" parts", disable=None) as progress,
    ):
        for part in missing:
            own = _members(lists, contents.places(part))
            store.write(part, _distributions(predictor, own, batch_size=batch_size))
            progress.update()
        store.finish()


def _warn_of_overlap(teacher: Path, loaded: Loaded) -> None:
    """Says if a teacher was trained on what a student is to be judged by: that flatters every choice made with it."""
    # The workdir, or the folder of one that its model lies in.
    path = next((found for folder in (teacher, teacher.parent) if (found := folder / "splits.npz").is_file()), None)
    if path is None or loaded.dataset.validation is not None:
        return
    theirs, ours = load_split(str(path)), loaded.split
    of_teacher, of_run = (json.loads(split.parameters) for split in (theirs, ours))
    # A pool of unlabeled examples stands behind the name of the others, whose positions do not depend on it.
    if of_teacher["dataset"].partition(" + ")[0] != of_run["dataset"].partition(" + ")[0]:
        return
    if loaded.dataset.ordered and of_teacher["split_seed"] != of_run["split_seed"]:
        _logger.warning(
            "The teacher was trained with --split_seed=%d, and here it is %d, which chooses other test examples: the "
            "teacher may have learned their labels. Expected the same seed.",
            of_teacher["split_seed"],
            of_run["split_seed"],
        )
        return
    held_out = np.concatenate([ours.validation, ours.meta_validation])
    shared = np.intersect1d(theirs.labeled, held_out).size
    if shared:
        _logger.warning(
            "The teacher has learned the labels of %d examples that this run validates with. Expected a teacher that "
            "has not: train it with the same --split_seed, --num_labeled and numbers of validation examples.",
            shared,
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
    probabilities = softmax(np.concatenate(logits), axis=1).astype(np.float32)
    if not np.isfinite(probabilities).all():
        raise UserError("The teacher's predictions are infinite or NaN. Expected a model that was trained to its end.")
    return probabilities


def fingerprint(teacher: Path) -> str:
    """sha256 of the files that hold a saved model's weights."""
    export = teacher / "export" if (teacher / "export").is_dir() else teacher
    paths = sorted((export / "variables").iterdir()) if export.is_dir() else [export]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
