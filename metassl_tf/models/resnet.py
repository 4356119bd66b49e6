"""ResNet-50 (arXiv:1512.03385) from keras_hub, the ImageNet model of UDA and Meta Pseudo Labels.

It reduces images 32 times: features of 32x32 images have a single position, and images of 64 pixels and more suit it
better. Pretrained weights expect the normalisation that they were trained with.
"""

import dataclasses

import keras

from metassl_tf.models.base import check_image_shape
from metassl_tf.models.keras_hub_backbone import check_channels, classifier_on, pretrained_backbone
from metassl_tf.settings import setting

# Of the backbone for colour images: 23,508,032 trainable, and 53,120 statistics of batch normalisation.
NUM_PARAMETERS = 23_561_152


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50:
    """Settings of ResNet-50."""

    pretrained: str = setting(
        "", "Local folder of a keras_hub preset of the backbone to start from; empty starts from random weights."
    )
    dropout: float = setting(0.0, "Dropout rate before the classifier.", minimum=0, below=1)
    batch_norm_momentum: float = setting(
        0.99, "Share of the moving batch statistics that one training step keeps.", minimum=0, below=1
    )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network; see `ModelSettings.build`."""
        check_image_shape("resnet50", input_shape)
        return classifier_on(
            self._backbone(input_shape),
            input_shape,
            num_classes,
            dropout=self.dropout,
            batch_norm_momentum=self.batch_norm_momentum,
            name="resnet50",
        )

    def _backbone(self, input_shape: tuple[int, ...]) -> keras.Model:
        from keras_hub.models import ResNetBackbone  # here, since the import takes seconds

        if self.pretrained:
            check_channels("resnet50", input_shape)
            shape = (*input_shape[:2], 3)
            return pretrained_backbone("resnet50", ResNetBackbone, self.pretrained, NUM_PARAMETERS, image_shape=shape)
        return ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
            image_shape=input_shape,
        )
