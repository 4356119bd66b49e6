"""From a keras_hub backbone to a classifier.

The backbone's layers are copied into one flat functional model, for three reasons: batch normalisation takes the
global batch's statistics and the momentum asked for; the saved model consists of Keras' own layers, so that it loads
where keras_hub is not installed; and images may be grey, which a backbone with pretrained weights does not take.
"""

import abc
import dataclasses
import os
from typing import Any, ClassVar

import keras
import numpy as np

from metassl_tf.errors import UserError
from metassl_tf.models.base import check_image_shape, classifier, inputs_of
from metassl_tf.models.batch_norm import fuse
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSettings(abc.ABC):
    """Settings of a classifier on a backbone.

    Attributes:
      name: of the model, as `--model` has it.
    """

    name: ClassVar[str]

    pretrained: str = setting(
        "", "Local folder of a keras_hub preset of the backbone to start from; empty starts from random weights."
    )
    dropout: float = setting(0.0, "Dropout rate before the classifier.", minimum=0, below=1)
    batch_norm_momentum: float = setting(
        0.99, "Share of the moving batch statistics that one training step keeps.", minimum=0, below=1
    )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network; see `ModelSettings.build`."""
        check_image_shape(self.name, input_shape)
        if self.pretrained and input_shape[-1] not in (1, 3):
            raise UserError(
                f"--pretrained weights of --model={self.name} take images of 1 or 3 channels. Received "
                f"{input_shape[-1]}. Leave --pretrained out to start from random weights."
            )
        return classifier_on(
            self._backbone(input_shape),
            input_shape,
            num_classes,
            dropout=self.dropout,
            batch_norm_momentum=self.batch_norm_momentum,
            name=self.name,
        )

    @abc.abstractmethod
    def _backbone(self, input_shape: tuple[int, ...]) -> keras.Model:
        """The backbone for images of a shape; a pretrained one takes color images of that size."""


def pretrained_backbone(model: str, backbone: Any, folder: str, num_parameters: int, **overrides: Any) -> keras.Model:
    """Loads a backbone with its weights from a local preset folder, never from the network.

    Args:
      model: name of the model, for messages.
      backbone: class of the backbone in keras_hub.
      folder: a folder as `keras_hub.models.Backbone.save_to_preset` writes it.
      num_parameters: parameters that the backbone must have, statistics of batch normalisation included.
      **overrides: arguments of the backbone's constructor that replace those of the preset.

    Returns:
      The backbone.

    Raises:
      UserError: the folder is missing, cannot be read or holds another network.
    """
    # Absolute, since keras_hub would look for a bare name among the presets that it downloads.
    path = os.path.abspath(folder)
    expected = f"Expected the folder of a keras_hub preset with an {backbone.__name__} of {num_parameters:,} parameters"
    if not os.path.isfile(os.path.join(path, "config.json")):
        found = "has no config.json" if os.path.isdir(path) else "is not a folder"
        raise UserError(
            f"--pretrained={folder} {found}. {expected}. Leave --pretrained out to start from random weights."
        )
    try:
        loaded = backbone.from_preset(path, **overrides)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"--pretrained={folder} cannot be loaded into --model={model}: {error} {expected}.") from error
    if loaded.count_params() != num_parameters:
        raise UserError(
            f"--pretrained={folder} does not fit --model={model}. {expected}. Received {loaded.count_params():,}."
        )
    return loaded


def classifier_on(
    backbone: keras.Model,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    dropout: float,
    batch_norm_momentum: float,
    name: str,
) -> keras.Model:
    """Copies a backbone into a flat model and adds the mean over all positions and the classifier.

    Args:
      backbone: a functional model of Keras layers from images to features [batch, height, width, channels].
      input_shape: shape of one image; grey where the backbone takes color is as good as three equal channels.
      num_classes: number of logits.
      dropout: rate of the dropout before the classifier.
      batch_norm_momentum: of all batch normalisation layers.
      name: of the model.

    Returns:
      A model as `ModelSettings.build` returns it.
    """

    def copy_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return fuse(type(layer).from_config(config | {"synchronized": True, "momentum": batch_norm_momentum}))
        return type(layer).from_config(config)

    inputs = inputs_of(input_shape)
    # The plain functional model is cloned layer by layer; the backbone's own class would be cloned by its arguments.
    body = keras.models.clone_model(
        keras.Model(backbone.input, backbone.output), input_tensors=inputs, clone_function=copy_layer
    )
    for target, source in zip(body.weights, backbone.weights, strict=True):
        value = keras.ops.convert_to_numpy(source)
        if target.shape != source.shape:
            # The first kernel [height, width, 3, filters] on three equal channels is its sum on one.
            value = np.sum(value, axis=2, keepdims=True)
        target.assign(value)
    features = keras.layers.GlobalAveragePooling2D(name="features")(body.output)  # [batch, num_features]
    return keras.Model(inputs, classifier(features, num_classes, dropout), name=name)
