"""The settings of a run. Each is defined here once: default, meaning and range; the flags are made from them.

Settings that belong to one choice (an algorithm's threshold, a model's width, an optimizer's momentum) live in that
choice's own file; `Config` holds the chosen ones beside the run's.
"""

import dataclasses
from typing import Any, TypeVar

from metassl_tf.algorithms.base import Algorithm, Needs
from metassl_tf.data.examples import MEMORY_LIMIT
from metassl_tf.data.pollution import POLLUTIONS
from metassl_tf.learner.schedules import RAMPS, Schedule
from metassl_tf.learner.update_rules import UpdateRule
from metassl_tf.learner.variables import COVERAGES
from metassl_tf.settings import setting

Rule = TypeVar("Rule")

_LARGEST_SEED = 2**32 - 1  # of NumPy's RandomState


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where examples come from and who is labeled."""

    dataset: str = setting(
        "digits",
        "Source of examples; behind a colon what to read, as tfds:NAME[:SPLIT]. cifar10, cifar100 and svhn_cropped are "
        "short for tfds:NAME.",
    )
    data_dir: str = setting("", "Folder of images, .npz file, or TFDS folder (else TFDS_DATA_DIR).")
    download: bool = setting(False, "Let TFDS download a missing dataset; nothing else ever uses the network.")
    unlabeled_dataset: str = setting(
        "",
        "Another source of unlabeled examples, such as tfds:svhn_cropped:extra or image_folder:DIR; labeled: none but "
        "the labeled ones.",
    )
    num_labeled: int = setting(0, "Labeled examples in the whole set, not per class; 0 takes all.", minimum=0)
    num_validation: int = setting(0, "Validation examples, set apart from the labeled and unlabeled ones.", minimum=0)
    num_meta_validation: int = setting(
        0, "Validation examples that weights are fitted on, apart from the others; 0: all of the others.", minimum=0
    )
    split_seed: int = setting(
        0, "Chooses who is labeled, validation, (digits) test, polluted or flipped.", minimum=0, maximum=_LARGEST_SEED
    )
    split_protocol: str = setting(
        "stratified",
        "Who is labeled: equally many of each class, the first ones, or the first after 5000.",
        choices=("stratified", "first", "skip_5000_then_first"),
    )
    labeled_in_unlabeled: bool = setting(True, "Labeled examples also serve as unlabeled ones.")
    unknown_classes: tuple[str, ...] = setting(
        (), "Names or numbers of classes that the model is not to know: in no labeled, validation or test example."
    )
    pollute_unlabeled: float = setting(
        0.0, "Share of the unlabeled examples to be made of examples that do not belong.", minimum=0.0, below=1.0
    )
    pollution: str = setting(
        "unknown_classes",
        "What does not belong: training examples of --unknown_classes, random pixels, or images of shuffled pixels.",
        choices=POLLUTIONS,
    )
    given_labels: str = setting(
        "source",
        "Where labels that nobody checked come from: source (DIR/weak/<class>/), truth (to simulate them), or the "
        "workdir, export or .keras file of a model that predicts them.",
    )
    flip_labels: float = setting(
        0.0, "Probability that a given label is replaced by another class.", minimum=0.0, maximum=1.0
    )
    stored_labels: str = setting(
        "", "Folder of a teacher's distributions for all training examples, which metassl_tf.label fills."
    )
    most_confident_per_class: int = setting(
        0, "Unlabeled examples to keep of those that the stored labels put in each class; 0 keeps all.", minimum=0
    )
    balance_classes: bool = setting(False, "Repeat unlabeled examples of smaller classes, by the stored labels.")
    image_size: int = setting(0, "Side of the images in pixels; 0: the most common size, at most 32.", minimum=0)
    channels: int = setting(0, "Color channels, 1 or 3; 0: as in the files.", minimum=0, maximum=3)
    strict_data: bool = setting(False, "An unreadable image is an error instead of being skipped.")
    memory_limit: float = setting(
        MEMORY_LIMIT, "Memory that decoded images of a source may take, in GiB; a larger folder is streamed.", above=0.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """How views are made."""

    weak_flip: str = setting(
        "auto", "Mirror images in the weak view; auto: where it keeps the class.", choices=("auto", "on", "off")
    )
    weak_shift: float = setting(
        0.125,
        "Largest shift of the weak view, as a share of the shorter side (0.125: 4 of 32).",
        minimum=0.0,
        below=1.0,
    )
    weak_padding: str = setting(
        "reflect", "What a shift uncovers: the mirrored image or the fill.", choices=("reflect", "constant")
    )
    strong_policy: str = setting(
        "auto", "RandAugment policy of the strong view; auto: digits for digits, fixmatch for other images."
    )
    strong_layers: int = setting(0, "Operations per image; 0: the policy's own.", minimum=0, maximum=16)
    strong_magnitude: int = setting(
        0,
        "Magnitude of every operation, 1 to 30, where 10 is the policy's full strength; 0: as drawn by it.",
        minimum=0,
    )
    point_noise: float = setting(
        0.1, "Strong view of points: standard deviation of Gaussian noise added to them.", minimum=0.0
    )
    normalization: str = setting(
        "symmetric",
        "Pixels to [-1, 1], or to zero mean and unit variance per channel.",
        choices=("symmetric", "mean_std"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained, how long, and how it is updated."""

    algorithm: str = setting(
        "fixmatch",
        "What turns a batch into losses; not given, it is uda with --meta=meta_pseudo_labels and noisy_student with "
        "--meta=reduced_meta_pseudo_labels.",
    )
    meta: tuple[str, ...] = setting((), "Rules that learn the learning signal of the algorithm; none by default.")
    model: str = setting("convnet", "Network, or the package.module:function that builds one.")
    single_logit: bool = setting(False, "Of two classes, learn one logit z; losses see (+z/2, -z/2).")
    optimizer: str = setting("sgd", "Update rule.")
    schedule: str = setting("cosine_7_16", "How the learning rate falls.")
    steps: int = setting(1000, "Training steps.", minimum=1)
    batch_size: int = setting(64, "Labeled examples per step, over all replicas.", minimum=1)
    unlabeled_ratio: int = setting(7, "Unlabeled examples per labeled one.", minimum=1)
    learning_rate: float = setting(0.03, "Learning rate after the warm-up.", minimum=0.0)
    warmup_steps: int = setting(0, "Steps of linear warm-up.", minimum=0)
    l2_weight_decay: float = setting(0.0, "Coupled decay: this times the weight is added to its gradient.", minimum=0.0)
    weight_decay_coverage: str = setting("kernels", "Weights that either decay acts on.", choices=COVERAGES)
    gradient_clip_norm: float = setting(0.0, "Largest global norm of the gradient; 0 never clips.", minimum=0.0)
    ema_decay: float = setting(0.999, "Decay of the moving average of the weights.", minimum=0.0, below=1.0)
    ema_ramp: bool = setting(True, "Ramp the decay as min(decay, (1 + t) / (10 + t)).")
    ema_statistics: bool = setting(True, "Average batch norm's statistics as well.")
    unlabeled_weight: float = setting(1.0, "Weight of the unlabeled loss.", minimum=0.0)
    unlabeled_ramp: str = setting("constant", "How that weight grows at the start.", choices=RAMPS)
    unlabeled_ramp_steps: int = setting(0, "Steps over which it grows.", minimum=0)
    init_from: str = setting("", "Workdir, checkpoint or .keras file whose weights to start from.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Seeds, evaluation, logging and hardware."""

    seed: int = setting(0, "Of initial weights, order, augmentation and dropout.", minimum=0, maximum=_LARGEST_SEED)
    deterministic: str = setting(
        "auto", "Bit-reproducible kernels; auto: on for CPU, off elsewhere.", choices=("auto", "on", "off")
    )
    precision: str = setting("float32", "Arithmetic of the model's body.", choices=("float32", "mixed_bfloat16"))
    distribution: str = setting(
        "auto",
        "Devices: auto takes all GPUs, else the CPU.",
        choices=("auto", "one_device", "mirrored", "tpu"),
    )
    tpu: str = setting("", "Name or address of the TPU; empty on a TPU VM.")
    xla: bool = setting(False, "Compile the step with XLA (one device; a TPU always does).")
    eval_steps: int = setting(100, "Steps between evaluations.", minimum=1)
    eval_batch_size: int = setting(256, "Examples per evaluation batch.", minimum=1)
    log_steps: int = setting(50, "Steps between two lines of training metrics.", minimum=1)
    checkpoint_steps: int = setting(100, "Steps between checkpoints; one is due after 10 s as well.", minimum=1)
    best_metric: str = setting(
        "accuracy",
        "Validation metric that chooses the best checkpoint.",
        choices=("accuracy", "balanced_accuracy", "loss"),
    )


TEACHER_PREFIX = "teacher_"

# What two networks of a run may differ in, beside the settings of their models, update rules and schedules.
NETWORK_SETTINGS = (
    "model",
    "optimizer",
    "schedule",
    "learning_rate",
    "warmup_steps",
    "l2_weight_decay",
    "weight_decay_coverage",
    "gradient_clip_norm",
    "ema_decay",
)


# Settings of models that act in training alone.
_OF_TRAINING = {"dropout", "stochastic_depth", "batch_norm_momentum"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What builds and updates one network.

    Attributes:
      prefix: what the names of its flags begin with; empty for the run's own network.
      train: the run's, with this network's values of `NETWORK_SETTINGS`.
      model: settings of its model; None for one given as package.module:function.
      rule: its update rule.
      schedule: its learning-rate schedule.
    """

    prefix: str = ""
    train: TrainSettings
    model: Any
    rule: UpdateRule
    schedule: Schedule

    def values(self) -> dict[str, Any]:
        """Every setting of the network alone by its flag name, in a fixed order."""
        own = {name: getattr(self.train, name) for name in NETWORK_SETTINGS}
        for part in (self.model, self.rule, self.schedule):
            own |= _values_of(part)
        return {f"{self.prefix}{name}": value for name, value in own.items()}

    def of_updates(self) -> list[str]:
        """Flag names of the settings without an effect where the network does not learn."""
        own = {name for name in NETWORK_SETTINGS if name != "model"} | {
            *_values_of(self.rule),
            *_values_of(self.schedule),
            *(_OF_TRAINING & _values_of(self.model).keys()),
        }
        return [f"{self.prefix}{name}" for name in sorted(own)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that determines a run. The workdir is not part of it.

    Attributes:
      data: where examples come from.
      augment: how views are made.
      train: what is trained and how.
      run: seeds, evaluation, logging, hardware.
      source: settings of the chosen dataset, or None where it has none.
      algorithm: the algorithm.
      meta: the rules that learn its learning signal, in order; none for a plain run.
      model: settings of the chosen model; None for one given as package.module:function.
      rule: the update rule.
      schedule: the learning-rate schedule.
      teacher: the second network; None without a meta rule that has one.
    """

    data: DataSettings
    augment: AugmentSettings
    train: TrainSettings
    run: RunSettings
    source: Any
    algorithm: Algorithm
    meta: tuple[Any, ...] = ()
    model: Any
    rule: UpdateRule
    schedule: Schedule
    teacher: Network | None = None

    @property
    def student(self) -> Network:
        """The run's own network, which learns from the teacher where there is one."""
        return Network(train=self.train, model=self.model, rule=self.rule, schedule=self.schedule)

    @property
    def needs(self) -> Needs:
        """What the pipeline has to provide: the algorithm's needs, and what the meta rules add to them."""
        needs = self.algorithm.needs()
        for rule in self.meta:
            needs = rule.needs(needs)
        return needs

    def values(self) -> dict[str, Any]:
        """Every setting by its flag name, in a fixed order."""
        values: dict[str, Any] = {}
        for own in dataclasses.fields(self):
            part = getattr(self, own.name)
            for settings in part if isinstance(part, tuple) else [part]:
                values |= settings.values() if isinstance(settings, Network) else _values_of(settings)
        return values

    def meta_rule(self, kind: type[Rule]) -> Rule | None:
        """The settings of the chosen rule of a kind, or None where it was not chosen."""
        return next((rule for rule in self.meta if isinstance(rule, kind)), None)


def _values_of(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass; none of None."""
    fields = () if settings is None else dataclasses.fields(settings)
    return {field.name: getattr(settings, field.name) for field in fields}


SECTIONS: dict[str, type] = {
    "data": DataSettings,
    "augment": AugmentSettings,
    "train": TrainSettings,
    "run": RunSettings,
}
