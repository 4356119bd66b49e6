"""Wide residual networks (arXiv:1605.07146), in the three variants that semi-supervised learning is measured with.

A network of depth 6 n + 4 and width k has a 3x3 stem, three stages of n pre-activated blocks with 16 k, 32 k and 64 k
filters, the last two of which begin with stride 2, and batch normalisation, leaky ReLU, mean over all positions and
classifier. A block is BN - ReLU - conv3x3 - BN - ReLU - conv3x3, plus its shortcut, which is a 1x1 convolution where
the block changes the number of filters or the size. The papers' "WRN-28-2" are three different networks:

| setting                      | FixMatch (default) | UDA       | Meta Pseudo Labels |
|------------------------------|--------------------|-----------|--------------------|
| `stem_filters`               | 16                 | 16        | 32                 |
| `leaky_slope`                | 0.1                | 0         | 0.2                |
| `conv_bias`                  | yes                | no        | no                 |
| `activated_shortcut`         | first              | never     | changing           |
| `classifier_init`            | glorot_normal      | uniform   | uniform            |
| `batch_norm_momentum`        | 0.999 (here 0.99)  | 0.9       | 0.99               |
| `batch_norm_epsilon`         | 1e-3               | 1e-5      | 1e-3               |
| `dropout`                    | 0                  | 0         | 0.2                |
| parameters, 28-2, 10 classes | 1,469,642          | 1,467,610 | 1,472,170          |

FixMatch is google-research/fixmatch (arXiv:2001.07685), UDA the image code of google-research/uda (arXiv:1904.12848),
Meta Pseudo Labels google-research/google-research/meta_pseudo_labels (arXiv:2003.10580). Parameters are the trainable
ones, for color images. Departs from the first in its default momentum: 0.999 suits 2^20 steps, and in short runs
leaves the moving statistics at their initial values.
"""

import dataclasses

import keras

from metassl_tf.errors import UserError
from metassl_tf.models.base import batch_normalization, check_image_shape, classifier, inputs_of
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNet:
    """Settings of the wide residual network; the module's table lists the papers' variants."""

    depth: int = setting(28, "Convolutions, 1x1 shortcuts counted: 6 n + 4 for n blocks a stage.", minimum=10)
    width: int = setting(2, "Widening factor: the stages have 16, 32 and 64 times as many filters.", minimum=1)
    stem_filters: int = setting(16, "Filters of the first convolution.", minimum=1)
    leaky_slope: float = setting(0.1, "Slope of the leaky ReLU below zero; 0 is ReLU.", minimum=0, below=1)
    batch_norm_momentum: float = setting(
        0.99, "Share of the moving batch statistics that one training step keeps.", minimum=0, below=1
    )
    batch_norm_epsilon: float = setting(1e-3, "Added to the variance in batch normalisation.", above=0)
    conv_bias: bool = setting(True, "Whether convolutions have a bias.")
    activated_shortcut: str = setting(
        "first",
        "Blocks whose shortcut starts behind their first BN and ReLU, not before it: the very first (FixMatch), "
        "those that change size or filters (Meta Pseudo Labels), or none (UDA).",
        choices=("first", "changing", "never"),
    )
    dropout: float = setting(0.0, "Dropout rate before the classifier.", minimum=0, below=1)
    classifier_init: str = setting(
        "glorot_normal",
        "How the classifier's kernel is drawn: Glorot-normal, or uniformly from ±1/sqrt(number of classes).",
        choices=("glorot_normal", "uniform"),
    )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network; see `ModelSettings.build`."""
        check_image_shape("wide_resnet", input_shape)
        blocks, remainder = divmod(self.depth - 4, 6)
        if remainder:
            raise UserError(
                f"--depth={self.depth} is not a depth of --model=wide_resnet. Expected 6 n + 4 for n blocks a stage: "
                "10, 16, 22, 28, 34, 40 ..."
            )
        inputs = inputs_of(input_shape)
        features = self._convolution(self.stem_filters, 3, 1, "stem")(inputs)
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                features = self._block(features, 16 * self.width * 2**stage, stride, name, stage == block == 0)
        features = self._activated(features, "head")
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)  # [batch, 64 * width]
        logits = classifier(features, num_classes, self.dropout, self._classifier_initializer())
        return keras.Model(inputs, logits, name="wide_resnet")

    def _block(
        self, inputs: keras.KerasTensor, filters: int, stride: int, name: str, is_first: bool
    ) -> keras.KerasTensor:
        """Returns inputs [batch, height, width, channels] -> [batch, height / stride, width / stride, filters]."""
        changing = stride != 1 or inputs.shape[-1] != filters
        activated = self._activated(inputs, f"{name}_1")
        residual = self._convolution(filters, 3, stride, f"{name}_1_conv")(activated)
        residual = self._activated(residual, f"{name}_2")
        residual = self._convolution(filters, 3, 1, f"{name}_2_conv")(residual)
        starts_activated = {"first": is_first, "changing": changing, "never": False}[self.activated_shortcut]
        shortcut = activated if starts_activated else inputs
        if changing:
            shortcut = self._convolution(filters, 1, stride, f"{name}_shortcut_conv")(shortcut)
        return keras.layers.Add(name=f"{name}_add")([shortcut, residual])

    def _activated(self, features: keras.KerasTensor, name: str) -> keras.KerasTensor:
        features = batch_normalization(self.batch_norm_momentum, self.batch_norm_epsilon, f"{name}_bn")(features)
        return keras.layers.LeakyReLU(self.leaky_slope, name=f"{name}_relu")(features)

    def _convolution(self, filters: int, kernel_size: int, stride: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding="same",
            use_bias=self.conv_bias,
            # N(0, 2 / (kernel_size^2 * filters)), not truncated.
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            name=name,
        )

    def _classifier_initializer(self) -> keras.initializers.Initializer:
        if self.classifier_init == "glorot_normal":
            return keras.initializers.GlorotNormal()
        # The limit of a uniform VarianceScaling is sqrt(3 * scale / fan_out), and fan_out is the number of classes.
        return keras.initializers.VarianceScaling(1 / 3, "fan_out", "uniform")
