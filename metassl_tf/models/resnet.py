"""ResNet-50 (arXiv:1512.03385) from keras_hub, the ImageNet model of UDA and Meta Pseudo Labels.

It reduces images 32 times: features of 32x32 images have a single position, and images of 64 pixels and more suit it
better. Pretrained weights expect the normalisation that they were trained with.
"""

import dataclasses
from typing import ClassVar

import keras

from metassl_tf.models.keras_hub_backbone import BackboneSettings, pretrained_backbone

# Of the backbone for color images: 23,508,032 trainable, and 53,120 statistics of batch normalisation.
NUM_PARAMETERS = 23_561_152


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50(BackboneSettings):
    """Settings of ResNet-50."""

    name: ClassVar[str] = "resnet50"

    def _backbone(self, input_shape: tuple[int, ...]) -> keras.Model:
        from keras_hub.models import ResNetBackbone  # here, since the import takes seconds

        if self.pretrained:
            shape = (*input_shape[:2], 3)
            return pretrained_backbone(self.name, ResNetBackbone, self.pretrained, NUM_PARAMETERS, image_shape=shape)
        return ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
            image_shape=input_shape,
        )
