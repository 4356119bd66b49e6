"""A small convolutional network that trains in minutes on a CPU.

For grey or color images of 8x8 to 32x32: three stages of two 3x3 convolutions, each with batch normalisation and leaky
ReLU; the second and third stage halve the image and double the filters; then the mean over all positions. Images of
more than 16 pixels a side are halved once more, by the very first convolution: the feature maps are 8, 4, 2 pixels wide
for 8x8 images, 14, 7, 4 for 28x28 and 16, 8, 4 for 32x32.
"""

import dataclasses

import keras

from metassl_tf.models.base import batch_normalization, check_image_shape, classifier, inputs_of
from metassl_tf.settings import setting

# The largest smaller side, in pixels, that the first convolution leaves as it is.
LARGEST_UNHALVED_SIDE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNet:
    """Settings of the small convolutional network."""

    filters: int = setting(
        32, "Filters of the first stage; the second has twice, the third four times as many.", minimum=1
    )
    leaky_slope: float = setting(0.1, "Slope of the leaky ReLU below zero; 0 is ReLU.", minimum=0, below=1)
    batch_norm_momentum: float = setting(
        0.99, "Share of the moving batch statistics that one training step keeps.", minimum=0, below=1
    )
    batch_norm_epsilon: float = setting(1e-3, "Added to the variance in batch normalisation.", above=0)
    dropout: float = setting(0.0, "Dropout rate before the classifier.", minimum=0, below=1)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network; see `ModelSettings.build`."""
        check_image_shape("convnet", input_shape)
        first_stride = 2 if min(input_shape[:2]) > LARGEST_UNHALVED_SIDE else 1
        inputs = inputs_of(input_shape)
        features = inputs
        for stage, stride in enumerate((first_stride, 2, 2)):
            filters = self.filters * 2**stage
            features = self._convolution(features, filters, stride, f"stage{stage + 1}_1")
            features = self._convolution(features, filters, 1, f"stage{stage + 1}_2")
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)  # [batch, 4 * filters]
        logits = classifier(features, num_classes, self.dropout)
        return keras.Model(inputs, logits, name="convnet")

    def _convolution(self, features: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
        features = keras.layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="same",
            use_bias=False,  # the batch normalisation that follows has one
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(features)
        features = batch_normalization(self.batch_norm_momentum, self.batch_norm_epsilon, f"{name}_bn")(features)
        return keras.layers.LeakyReLU(self.leaky_slope, name=f"{name}_relu")(features)
