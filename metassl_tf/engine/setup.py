"""From a config to everything a run needs: data, split, views, networks and what trains them."""

import dataclasses
import logging

import keras
import numpy as np
import tensorflow as tf

from metassl_tf.augment.normalize import Normalization
from metassl_tf.augment.policies import find_policy
from metassl_tf.config import Config, TrainSettings
from metassl_tf.data.examples import Dataset, Examples, empty_like, spread
from metassl_tf.data.pipeline import Pipeline
from metassl_tf.data.splits import Split
from metassl_tf.data.views import ImageViews, PointViews, Views, reader
from metassl_tf.engine.load import load_examples
from metassl_tf.engine.networks import build_learner
from metassl_tf.engine.teachers import build_teaching
from metassl_tf.engine.weights import build_weighting
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Training
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.teaching import Teaching
from metassl_tf.meta.weighting import Weighting

_logger = logging.getLogger(__name__)

_STATISTICS_SAMPLE = 10_000
_OF_POINTS = ("point_noise",)  # the other settings of the augmentation are of images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run, built and not yet started.

    Attributes:
      config: its settings.
      dataset: what the source gave, as the settings change it.
      split: who is labeled, unlabeled, validation and test.
      labeled: the labeled examples, in the split's order.
      unlabeled: the unlabeled ones, in the split's order, with labels for measuring only.
      validation: set apart; may be empty.
      test: held out; may be empty.
      views: how inputs are made.
      strategy: the devices.
      training: a step of it; of teacher and student together where there is a teacher.
      meta_validation: what weights are learned from; may be empty.
      weighting: the learned weights, or None.
    """

    config: Config
    dataset: Dataset
    split: Split
    labeled: Examples
    unlabeled: Examples
    validation: Examples
    test: Examples
    views: Views
    strategy: tf.distribute.Strategy
    training: Training | Teaching
    meta_validation: Examples
    weighting: Weighting | None

    @property
    def learner(self) -> Learner:
        """The model and what changes with it; where there is a teacher, the student."""
        return self.training.learner

    @property
    def teaching(self) -> Teaching | None:
        """The rule by which a teacher learns from the student, or None."""
        return self.training if isinstance(self.training, Teaching) else None

    def pipeline(self) -> Pipeline:
        """The batches of the run."""
        train = self.config.train
        return Pipeline(
            labeled=self.labeled,
            unlabeled=self.unlabeled,
            views=self.views,
            needs=self.config.needs,
            batch_size=train.batch_size,
            unlabeled_batch_size=train.batch_size * train.unlabeled_ratio,
            seed=self.config.run.seed,
        )

    @property
    def examples_per_step(self) -> int:
        """Labeled and unlabeled examples of a step, each counted once however many views it has."""
        train = self.config.train
        ratio = train.unlabeled_ratio if self.config.needs.unlabeled_views else 0
        return train.batch_size * (1 + ratio)


def choose_strategy(distribution: str, tpu: str) -> tf.distribute.Strategy:
    """Finds the devices.

    Args:
      distribution: `auto`, `one_device`, `mirrored` or `tpu`.
      tpu: name or address of the TPU, for `tpu`.

    Returns:
      A strategy; the default one, which adds nothing to the graph, for one device.

    Raises:
      UserError: there is no TPU to connect to.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if distribution == "one_device" or (distribution == "auto" and gpus <= 1):
        return tf.distribute.get_strategy()
    from official.common import distribute_utils  # imports for seconds, and most runs have one device

    if distribution != "tpu":
        return distribute_utils.get_distribution_strategy("mirrored", num_gpus=gpus)
    try:
        return distribute_utils.get_distribution_strategy("tpu", tpu_address=tpu or "local")
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"--distribution=tpu found no TPU ({str(error).splitlines()[0]}). Expected to run on a TPU VM, or "
            "--tpu=NAME of one that can be reached."
        ) from error


def seed_everything(config: Config) -> None:
    """Seeds what draws initial weights, and makes kernels reproducible where asked for.

    Args:
      config: of the run; `--deterministic=auto` means on unless there is a GPU.
    """
    keras.utils.set_random_seed(config.run.seed)  # of Python, NumPy and TensorFlow
    on_cpu = not tf.config.list_physical_devices("GPU") and config.run.distribution != "tpu"
    if config.run.deterministic == "on" or (config.run.deterministic == "auto" and on_cpu):
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.run.precision)


def build(config: Config, *, strategy: tf.distribute.Strategy | None = None) -> Experiment:
    """Builds a run.

    Args:
      config: its settings.
      strategy: devices to use instead of those that the config names.

    Returns:
      The run, with freshly initialised weights.

    Raises:
      UserError: the settings do not fit the data, the model or each other.
    """
    seed_everything(config)
    strategy = strategy or choose_strategy(config.run.distribution, config.run.tpu)
    dataset, split, parts = load_examples(config)
    views = make_views(config, dataset)
    _check_batches(config, split, dataset)
    _check_ramp(config.train)
    with strategy.scope():
        training = build_teaching(config, dataset) or Training(
            build_learner(config.student, dataset, seed=config.run.seed), config.algorithm
        )
    examples = parts._asdict()
    if config.meta_rule(PerExampleWeights) and not len(parts.meta_validation):
        # What weights are fitted to cannot say which step was best.
        examples |= {"meta_validation": parts.validation, "validation": empty_like(parts.validation)}
    return Experiment(
        config=config,
        dataset=dataset,
        split=split,
        **examples,
        views=views,
        strategy=strategy,
        training=training,
        weighting=build_weighting(config, training, dataset, split, examples["meta_validation"], strategy),
    )


def _check_batches(config: Config, split: Split, dataset: Dataset) -> None:
    """A labeled batch may repeat its few labels; beyond the whole set, a batch size is a mistake."""
    train = config.train
    largest = len(dataset.train) + (0 if dataset.unlabeled is None else len(dataset.unlabeled))
    if train.batch_size > largest:
        raise UserError(
            f"--batch_size={train.batch_size} is larger than the set, which has {largest} examples. "
            f"Expected at most {largest}: lower it."
        )
    if train.batch_size > len(split.labeled):
        _logger.info(
            "--batch_size=%d is larger than the %d labeled examples; each is seen more than once in a step.",
            train.batch_size,
            len(split.labeled),
        )
    if not config.needs.unlabeled_views:
        return
    if not len(split.unlabeled):
        own = config.algorithm.needs().unlabeled_views
        name = f"--algorithm={train.algorithm}" if own else f"--meta={','.join(train.meta)}"
        raise UserError(
            f"{name} learns from unlabeled examples and there are none. Expected some beside "
            "the labeled ones: lower --num_labeled, or give --unlabeled_dataset."
        )
    unlabeled_batch = train.batch_size * train.unlabeled_ratio
    if unlabeled_batch > len(split.unlabeled):
        raise UserError(
            f"--batch_size x --unlabeled_ratio is {train.batch_size} x {train.unlabeled_ratio} = {unlabeled_batch}, "
            f"larger than the set of {len(split.unlabeled)} unlabeled examples. Expected at most that many: lower one."
        )


def _check_ramp(train: TrainSettings) -> None:
    if train.unlabeled_ramp != "constant" and not train.unlabeled_ramp_steps:
        raise UserError(
            f"--unlabeled_ramp={train.unlabeled_ramp} has no length. Expected --unlabeled_ramp_steps of at least 1, "
            "the steps over which the unlabeled weight grows."
        )


def make_views(config: Config, dataset: Dataset) -> Views:
    """Decides how inputs are made from the settings and the data."""
    settings = config.augment
    for field in dataclasses.fields(settings):
        given = getattr(settings, field.name) != field.default
        if given and (field.name in _OF_POINTS) != (dataset.modality == "points"):
            kind = "points" if dataset.modality == "points" else "images"
            raise UserError(
                f"--{field.name} has no effect on {kind}, which --dataset holds. Expected it to be left out."
            )
    if dataset.modality == "points":
        return PointViews(noise=settings.point_noise)
    height, width, channels = dataset.train.shape
    if min(height, width) < 2:
        raise UserError(
            f"The images are {height} x {width} pixels. Expected at least 2 x 2: choose a larger --image_size, or "
            "store rows of numbers as points, [examples, numbers]."
        )
    name = settings.strong_policy
    if name == "auto":
        name = "digits" if channels == 1 and width < 16 else "fixmatch"
    policy = find_policy(name, num_layers=settings.strong_layers or None, magnitude=settings.strong_magnitude or None)
    normalization = Normalization()
    if settings.normalization == "mean_std":
        normalization = _measured_normalization(dataset.train)
    flip = dataset.flip if settings.weak_flip == "auto" else settings.weak_flip == "on"
    return ImageViews(
        flip=flip,
        padding=round(settings.weak_shift * min(height, width)),
        padding_mode=settings.weak_padding,
        policy=policy,
        # With zero mean, UDA and its followers fill with what becomes zero.
        fill=normalization.mean_fill() if settings.normalization == "mean_std" else policy.fill,
        normalization=normalization,
    )


def _measured_normalization(examples: Examples) -> Normalization:
    """Mean and standard deviation of each channel over (a sample of) the training images."""
    index = spread(len(examples), most=_STATISTICS_SAMPLE)
    images = reader(examples)(tf.constant(index)).numpy() / 255.0
    deviation = np.maximum(images.std(axis=(0, 1, 2)), 1e-3)  # a constant channel has no scale of its own
    return Normalization(mean=tuple(images.mean(axis=(0, 1, 2)).tolist()), std=tuple(deviation.tolist()))
