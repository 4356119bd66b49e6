"""Backbones: one file per family, and the table of their settings.

`MODELS` maps a value of `--model` to a frozen dataclass whose fields are the model's settings and whose `build` makes
the network. A field name that several models share has the same type in each, so that it can be one flag; its default
may differ. A model that is not in the table needs no file here: `metassl_tf.models.build.build_model` also takes
`package.module:function`.
"""

from metassl_tf.models.base import ModelSettings
from metassl_tf.models.convnet import ConvNet
from metassl_tf.models.efficientnet import EfficientNetB0
from metassl_tf.models.mlp import MLP
from metassl_tf.models.resnet import ResNet50
from metassl_tf.models.wide_resnet import WideResNet

MODELS: dict[str, type[ModelSettings]] = {
    "mlp": MLP,
    "convnet": ConvNet,
    "wide_resnet": WideResNet,
    "resnet50": ResNet50,
    "efficientnet_b0": EfficientNetB0,
}
