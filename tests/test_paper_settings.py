"""Flagfiles of Meta Pseudo Labels set what the papers' tables and the released code say, number by number.

"Thesis" is chapter 5 of H. Pham's thesis, "v1" is arXiv:2003.10580v1, "the release" is the authors' code, folder
meta_pseudo_labels of google-research. The tables are copied from there, a row a line, not from the flagfiles.
"""

from pathlib import Path
from typing import Any

import pytest

from metassl_tf import flag_definitions

FLAGS = Path(__file__).parent.parent / "flags"
COLUMNS = {"cifar10": 0, "svhn": 1}
FLAGFILES = sorted(
    path.relative_to(FLAGS).with_suffix("").as_posix()
    for folder in COLUMNS
    for source in ("thesis", "v1", "released")
    for path in (FLAGS / folder).glob(f"{source}_*.flags")
)

Table = dict[str, Any]
"""Setting -> its value for (CIFAR-10, SVHN), or one value for both."""


def both(settings: Table) -> Table:
    """Settings of the student, and the same ones of the teacher."""
    return settings | {f"teacher_{name}": cells for name, cells in settings.items()}


# Thesis, 5.3.2 and 5.7.4: the first 5,000 images are dropped, the next ones labeled. v1, C.1: the first ones are.
THESIS_SPLIT = {"split_protocol": "skip_5000_then_first", "num_labeled": (4000, 1000)}
V1_SPLIT = {"split_protocol": "first", "num_labeled": (4000, 1000)}
# Thesis, 5.7.7, and v1, C.1: Nesterov momentum, and a cosine down to zero.
OPTIMIZER = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "schedule": "cosine"}
# Thesis, Table 5.5; its entries are tested with the policies.
TABLE_5_5 = {"strong_policy": ("thesis_cifar", "thesis_svhn")}
# Thesis, Table 5.6: supervised learning and Pseudo-Label, columns CIFAR-10 and SVHN.
TABLE_5_6 = {
    "l2_weight_decay": (0.0005, 0.001),
    "label_smoothing": (0.0, 0.0),
    "batch_norm_momentum": (0.99, 0.99),
    "learning_rate": (0.4, 0.05),
    "steps": (50_000, 50_000),
    "warmup_steps": (2500, 0),
    "batch_size": (1024, 128),
    "dropout": (0.4, 0.5),
}
THRESHOLD_5_6 = {"threshold": (0.95, 0.975)}
# Thesis, Table 5.7: UDA, columns CIFAR-10 and SVHN. Its caption says that both batches are of one size.
TABLE_5_7 = {
    "l2_weight_decay": (0.0005, 0.0005),
    "label_smoothing": (0.0, 0.0),
    "batch_norm_momentum": (0.99, 0.99),
    "learning_rate": (0.3, 0.4),
    "steps": (1_000_000, 1_000_000),
    "warmup_steps": (5000, 5000),
    "batch_size": (128, 128),
    "unlabeled_ratio": 1,
    "dropout": (0.5, 0.6),
    "unlabeled_weight": (2.5, 1.0),
    "temperature": (0.7, 0.8),
}
# Thesis, Table 5.8: Meta Pseudo Labels, columns CIFAR-10 and SVHN. Label smoothing stands under "Common", so it is of
# both networks: the plain flag is that of the teacher's algorithm, and the student has one of its own. Batches of 128
# are the teacher's labeled images and the student's unlabeled ones.
TABLE_5_8 = {
    **both({"l2_weight_decay": (0.0005, 0.0005)}),
    "label_smoothing": (0.1, 0.1),
    "student_label_smoothing": (0.1, 0.1),
    **both({"batch_norm_momentum": (0.99, 0.99)}),
    "steps": (1_000_000, 1_000_000),
    **both({"warmup_steps": (2000, 2000)}),
    # Student
    "learning_rate": (0.3, 0.15),
    "unlabeled_ratio": 1,
    "dropout": (0.35, 0.45),
    # Teacher
    "teacher_learning_rate": (0.125, 0.05),
    "batch_size": (128, 128),
    "teacher_dropout": (0.5, 0.65),
}
UDA_5_8 = {
    "unlabeled_weight": (1.0, 2.5),
    "temperature": (0.8, 1.25),
}
# v1, Table 3: Meta Pseudo Labels, columns CIFAR-10 and SVHN.
TABLE_3 = {
    **both({"l2_weight_decay": (0.0005, 0.0005)}),
    "label_smoothing": (0.0, 0.0),
    "student_label_smoothing": (0.0, 0.0),
    **both({"batch_norm_momentum": (0.99, 0.99)}),
    "steps": (1_000_000, 1_000_000),
    **both({"warmup_steps": (2000, 2000)}),
    # Student
    "learning_rate": (0.3, 0.15),
    "unlabeled_ratio": 1,
    "dropout": (0.35, 0.45),
    # Teacher
    "teacher_learning_rate": (0.125, 0.05),
    "batch_size": (128, 128),
    "teacher_dropout": (0.5, 0.65),
    # UDA
    "unlabeled_weight": (1.0, 2.5),
    "temperature": (0.8, 1.25),
    # It says nothing of labeled examples that are masked, unlike the thesis in 5.7.7.
    "annealing": "none",
}
# Thesis, 5.7.6: the cosine; 5.3.2: the student learns from labels at the end.
THESIS_FEEDBACK = {
    "feedback": "hard_cosine",
    "fine_tune_steps": 1000,
    "fine_tune_learning_rate": 1e-5,
    "fine_tune_batch_size": 512,
}
# v1, Eq. 3: differentiated through the student's step. There is no fine-tuning.
V1_FEEDBACK = {"feedback": "soft_jvp", "fine_tune_steps": 0}
# The release: the README's command for CIFAR-10 with 4,000 labels, and defaults of the code.
RELEASE = {
    # README.
    "steps": 300_000,
    "label_smoothing": 0.15,
    "student_label_smoothing": 0.15,
    "unlabeled_weight": 8.0,
    "unlabeled_ramp": "linear",
    "unlabeled_ramp_steps": 5000,
    "temperature": 0.7,
    "threshold": 0.6,
    "batch_size": 128,
    "unlabeled_ratio": 7,
    "student_wait_steps": 3000,
    # Losses: the tempered probability meets the threshold, annealing is logged but not applied, and what the student
    # learns is not tempered.
    "confidence": "tempered",
    "annealing": "none",
    "distillation_temperature": 1.0,
    # A difference of losses less its average, times the mean of 7 * 128 cross-entropies, of which ours is the sum.
    # That its labels are soft is left out: see Departs.
    "feedback": "hard_difference",
    "feedback_weight": 1 / 896,
    "baseline_decay": 0.99,
    "fine_tune_steps": 0,
    # Learning rates are 0.1 * 128 / 256; the bound on the norm of gradients, 1e9, is none.
    **both(OPTIMIZER | {"learning_rate": 0.05, "warmup_steps": 5000, "gradient_clip_norm": 0.0}),
    **both({"l2_weight_decay": 0.0005, "weight_decay_coverage": "all_but_norm"}),
    "ema_decay": 0.995,
    "ema_ramp": True,
    "ema_statistics": True,
    "eval_steps": 1000,
    # Magnitude 16 and two layers are the policy's own. Shifts are by up to 4 of 32 pixels.
    "strong_policy": "mpl",
    "strong_layers": 0,
    "strong_magnitude": 0,
    "weak_flip": "on",
    "weak_shift": 0.125,
    "weak_padding": "constant",
    "normalization": "mean_std",
    # The first 4,000 images are labeled, all 50,000 unlabeled.
    "num_labeled": 4000,
    "split_protocol": "first",
    "labeled_in_unlabeled": True,
    **both({"model": "wide_resnet", "depth": 28, "width": 2, "stem_filters": 32, "leaky_slope": 0.2}),
    **both({"conv_bias": False, "activated_shortcut": "changing", "classifier_init": "uniform", "dropout": 0.2}),
    **both({"batch_norm_momentum": 0.99, "batch_norm_epsilon": 0.001}),
}

SUPERVISED = {"algorithm": "supervised", "mixup": 0.0, "labeled_view": "weak"}
RAND_AUGMENT = {"algorithm": "supervised", "mixup": 0.0, "labeled_view": "strong"}
# The thesis does not give mixup's concentration: see Departs.
MIXUP = {"algorithm": "supervised", "labeled_view": "weak"}
PSEUDO_LABEL = {"algorithm": "pseudo_label", "unlabeled_ratio": 1, **THRESHOLD_5_6}
# The papers do not give the threshold: see Departs.
UDA = {"algorithm": "uda"}

BASELINE = THESIS_SPLIT | OPTIMIZER
TEACHING = THESIS_SPLIT | both(OPTIMIZER) | TABLE_5_8 | THESIS_FEEDBACK
# Thesis, 5.7.10: without RandAugment, and without other images than the labeled ones.
REGULARIZATION = {"strong_policy": "weak", "unlabeled_dataset": "labeled"}
RECIPES: dict[str, Table] = {
    "thesis_supervised": BASELINE | TABLE_5_6 | SUPERVISED,
    "thesis_rand_augment": BASELINE | TABLE_5_6 | TABLE_5_5 | RAND_AUGMENT,
    "thesis_mixup": BASELINE | TABLE_5_6 | MIXUP,
    "thesis_pseudo_label": BASELINE | TABLE_5_6 | PSEUDO_LABEL,
    "thesis_uda": BASELINE | TABLE_5_7 | TABLE_5_5 | UDA,
    "thesis_mpl": TEACHING | TABLE_5_5 | UDA_5_8 | UDA,
    "thesis_mpl_rand_augment": TEACHING | TABLE_5_5 | RAND_AUGMENT,
    "thesis_mpl_mixup": TEACHING | TABLE_5_5 | MIXUP,
    "thesis_mpl_pseudo_label": TEACHING | TABLE_5_5 | PSEUDO_LABEL,
    "thesis_mpl_regularization": TEACHING | REGULARIZATION | SUPERVISED,
    "v1_mpl": V1_SPLIT | both(OPTIMIZER) | TABLE_3 | V1_FEEDBACK | UDA,
    "released_mpl": RELEASE | UDA,
}
"""Name of a flagfile less its number of labels -> what its settings are in the column of its folder."""


def recipe_of(name: str) -> str:
    return name.partition("/")[2].rpartition("_")[0]


@pytest.mark.parametrize("name", FLAGFILES)
def test_settings_are_those_of_the_paper(name: str) -> None:
    column = COLUMNS[name.partition("/")[0]]
    expected = {
        row: cells[column] if isinstance(cells, tuple) else cells for row, cells in RECIPES[recipe_of(name)].items()
    }
    values = flag_definitions.parse([f"--flagfile={FLAGS / name}.flags"]).values()
    assert {row: values.get(row, "no such setting") for row in expected} == expected


def test_every_recipe_has_a_flagfile() -> None:
    assert {recipe_of(name) for name in FLAGFILES} == set(RECIPES)
