"""RandAugment policies: which operations are drawn, how often and how strong, one entry per paper or released code.

`POLICIES` is the table. A policy's strengths are what magnitude 10 means, in units that do not depend on the image
size: the papers' pixels of 32 are written as fractions of the width.
"""

import dataclasses

from metassl_tf.augment.geometry import INTERPOLATIONS
from metassl_tf.errors import UserError, near_match
from metassl_tf.settings import check_settings, setting

GEOMETRIC_OPERATIONS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
PIXEL_OPERATIONS = (
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "cutout",
    "equalize",
    "invert",
    "posterize",
    "sample_pairing",
    "sharpness",
    "solarize",
)
OPERATIONS = ("identity", *GEOMETRIC_OPERATIONS, *PIXEL_OPERATIONS)
"""Every operation a policy may list."""
_MAX_MAGNITUDE = 30

# google-research/fixmatch, libml/augment.py, RANDOM_POLICY_OPS.
_FIXMATCH_OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "translate_x",
    "translate_y",
    "posterize",
    "shear_y",
)
# google-research/uda, image/randaugment/policies.py; google-research meta_pseudo_labels/augment.py lists the same.
_UDA_OPERATIONS = (
    "invert",
    "cutout",
    "sharpness",
    "autocontrast",
    "posterize",
    "shear_x",
    "translate_x",
    "translate_y",
    "shear_y",
    "rotate",
    "equalize",
    "contrast",
    "color",
    "solarize",
    "brightness",
)
# Pham's thesis, Table 5.5.
_THESIS_SVHN_OPERATIONS = (
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "invert",
    "sharpness",
    "posterize",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_y",
)
_DIGITS_OPERATIONS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y", "sharpness")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A RandAugment policy (Cubuk et al., arXiv:1909.13719); the defaults are those of google-research/fixmatch.

    Per image and layer: an operation is drawn uniformly, with replacement over layers, and is applied with the image's
    probability at a magnitude drawn uniformly from the integers of its range. Directions have a random sign.

    Raises:
      UserError: an unknown or no operation, a value out of its range, or a lower bound above its upper bound.
    """

    operations: tuple[str, ...] = setting(_FIXMATCH_OPERATIONS, "names of the operations that a layer draws from")
    num_layers: int = setting(2, "operations drawn per image, one after the other", minimum=0)
    min_magnitude: int = setting(1, "smallest magnitude that is drawn", minimum=0, maximum=_MAX_MAGNITUDE)
    max_magnitude: int = setting(
        9, "largest magnitude that is drawn; 10 means the strengths below", minimum=0, maximum=_MAX_MAGNITUDE
    )
    min_probability: float = setting(0.5, "lower bound of an image's probability", minimum=0.0, maximum=1.0)
    max_probability: float = setting(
        0.5,
        "upper bound of an image's probability, which is drawn once and applies to each layer",
        minimum=0.0,
        maximum=1.0,
    )
    rotate: float = setting(30.0, "degrees of rotation at magnitude 10", minimum=0.0, maximum=180.0)
    shear: float = setting(0.3, "shear in pixels per pixel at magnitude 10", minimum=0.0)
    translate: float = setting(10 / 32, "shift at magnitude 10, as a fraction of the width or height", minimum=0.0)
    min_enhance: float = setting(0.1, "factor of brightness, color, contrast, sharpness at magnitude 0", minimum=0.0)
    max_enhance: float = setting(1.9, "that factor at magnitude 10; 1 is the unchanged image", minimum=0.0)
    cutout: float = setting(
        20 / 32, "side of the cutout operation's box at magnitude 10, over the shorter side", minimum=0.0
    )
    pairing: float = setting(
        0.4, "weight of the other image in sample pairing from magnitude 10 on", minimum=0.0, maximum=1.0
    )
    tone: str = setting(
        "stronger", "how posterize and solarize change as the magnitude grows", choices=("stronger", "weaker")
    )
    interpolation: str = setting("nearest", "resampling of the geometric operations", choices=INTERPOLATIONS)
    centered_shear: bool = setting(False, "shear about the centre instead of the upper left corner")
    final_cutout: float = setting(
        0.5, "side of the box cut out at the end, over the shorter side", minimum=0.0, maximum=1.0
    )
    fill: int = setting(
        128, "grey level outside the image and in boxes, unless the caller gives another", minimum=0, maximum=255
    )
    start: str = setting(
        "weak",
        "what is augmented: the image, a weakly augmented view of its own, or the weak view itself",
        choices=("image", "weak", "weak_view"),
    )
    weak_after: bool = setting(False, "whether a second weak augmentation follows")

    def __post_init__(self) -> None:
        check_settings(self)
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise UserError(
                    f"Augmentation operation {operation!r} is not known. Expected some of: {', '.join(OPERATIONS)}."
                    f"{near_match(operation, list(OPERATIONS))}"
                )
        if not self.operations:
            raise UserError("The policy lists no operations. Expected at least one, 'identity' for no change.")
        for bound in ("magnitude", "probability"):
            low, high = getattr(self, f"min_{bound}"), getattr(self, f"max_{bound}")
            if low > high:
                raise UserError(f"min_{bound}={low} is above max_{bound}={high}. Expected at most that.")


_MPL = Policy(
    operations=_UDA_OPERATIONS,
    min_magnitude=16,
    max_magnitude=16,
    min_probability=0.2,
    max_probability=0.8,
    translate=1 / 8,
    cutout=1 / 4,
    tone="weaker",
    start="weak_view",
    weak_after=True,
)

POLICIES = {
    # FixMatch's RandAugment ablation (arXiv:2001.07685) and its UDA baseline: `rac` of google-research/fixmatch.
    "fixmatch": Policy(),
    # UDA (arXiv:1904.12848), google-research/uda. Its fill is the dataset's mean: give it, e.g. from
    # `Normalization.mean_fill`. The released code draws 100 augmentations per image once; here they never repeat.
    "uda": Policy(operations=_UDA_OPERATIONS, start="image", weak_after=True),
    # Meta Pseudo Labels' released code (google-research, meta_pseudo_labels), with Pillow's blending instead of the
    # release's two faults: there, levels wrap around instead of saturating for factors above 1, and `contrast` blends
    # with the level (pixels / 256) instead of the mean. As there, magnitude 16 posterizes to 6 bits and solarizes from
    # 153 (409 wrapped around in uint8).
    "mpl": _MPL,
    # Pham's thesis, Table 5.5, which gives the operations alone: layers, magnitude and the rest are the release's.
    # Sample Pairing is in no released code; AutoAugment (arXiv:1805.09501) lets its weight reach 0.4, kept as a cap.
    "thesis_cifar": dataclasses.replace(
        _MPL, operations=(*_THESIS_SVHN_OPERATIONS, "sample_pairing", "rotate", "translate_x")
    ),
    # No rotation (6 and 9) and no horizontal shift (half an 8 is a 3), for digits among other digits.
    "thesis_svhn": dataclasses.replace(_MPL, operations=_THESIS_SVHN_OPERATIONS),
    # Bright digits of about 8 x 8 to 28 x 28 pixels on black: nothing that mirrors, inverts or hides a stroke. Nearest
    # neighbors tear strokes one pixel wide, so these are interpolated; a shift of 1/5 is 1.6 pixels of 8.
    "digits": Policy(
        operations=_DIGITS_OPERATIONS,
        num_layers=3,
        max_magnitude=10,
        min_probability=1.0,
        max_probability=1.0,
        rotate=20.0,
        shear=0.3,
        translate=0.2,
        min_enhance=0.5,
        max_enhance=1.5,
        interpolation="bilinear",
        centered_shear=True,
        final_cutout=0.25,
        fill=0,
    ),
    # A weak view of its own and nothing more, where RandAugment is to be left out.
    "weak": Policy(operations=("identity",), num_layers=0, final_cutout=0.0),
}
"""Name -> policy."""


def find_policy(name: str, *, num_layers: int | None = None, magnitude: int | None = None) -> Policy:
    """Looks a policy up, with another number of layers or a fixed magnitude where given.

    Args:
      name: a key of `POLICIES`.
      num_layers: operations drawn per image; None keeps the policy's.
      magnitude: one magnitude for all, 0 to 30; None keeps the policy's range.

    Returns:
      The policy.

    Raises:
      UserError: the name is not in the table, or a value is out of its range.
    """
    if name not in POLICIES:
        raise UserError(
            f"--strong_policy={name} is not known. Expected one of: {', '.join(POLICIES)}."
            f"{near_match(name, list(POLICIES))}"
        )
    if magnitude is not None and not 0 <= magnitude <= _MAX_MAGNITUDE:
        raise UserError(
            f"--strong_magnitude={magnitude} is out of range. Expected 0 to {_MAX_MAGNITUDE}, where 10 is the policy's "
            "own full strength."
        )
    policy = POLICIES[name]
    if num_layers is not None:
        policy = dataclasses.replace(policy, num_layers=num_layers)
    if magnitude is not None:
        policy = dataclasses.replace(policy, min_magnitude=magnitude, max_magnitude=magnitude)
    return policy
