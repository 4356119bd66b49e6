"""EfficientNet-B0 (arXiv:1905.11946) from keras_hub, with stochastic depth (arXiv:1603.09382).

It reduces images 32 times: features of 32x32 images have a single position, and images of 64 pixels and more suit it
better. Pretrained weights expect the normalisation that they were trained with.
"""

import dataclasses
from typing import Any, ClassVar

import keras

from metassl_tf.models.keras_hub_backbone import BackboneSettings, pretrained_backbone
from metassl_tf.settings import setting

# Of the backbone for color images: 4,007,548 trainable, and 42,016 statistics of batch normalisation.
NUM_PARAMETERS = 4_049_564

# The paper's Table 1, one entry per stage.
ARCHITECTURE: dict[str, Any] = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
    "stackwise_block_types": ["v1"] * 7,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "use_depth_divisor_as_min_depth": True,
    "cap_round_filter_decrease": True,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetB0(BackboneSettings):
    """Settings of EfficientNet-B0."""

    name: ClassVar[str] = "efficientnet_b0"

    stochastic_depth: float = setting(
        0.2, "Residual block i of 16 is skipped in training at this rate times i / 16.", minimum=0, below=1
    )
    dropout: float = setting(0.2, "Dropout rate before the classifier.", minimum=0, below=1)

    def _backbone(self, input_shape: tuple[int, ...]) -> keras.Model:
        from keras_hub.models import EfficientNetBackbone  # here, since the import takes seconds

        if self.pretrained:
            return pretrained_backbone(
                self.name,
                EfficientNetBackbone,
                self.pretrained,
                NUM_PARAMETERS,
                input_shape=(*input_shape[:2], 3),
                dropout=self.stochastic_depth,  # keras_hub's name for it
            )
        return EfficientNetBackbone(**ARCHITECTURE, input_shape=input_shape, dropout=self.stochastic_depth)
