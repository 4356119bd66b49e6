"""What goes into a trained model and what comes out: everything a prediction needs beside the weights.

It is written when a run starts, and stored in everything exported from it, so that neither exporting nor predicting
needs the training data.
"""

import dataclasses
import json

import tensorflow as tf

from metassl_tf.augment.normalize import Normalization
from metassl_tf.errors import UserError

FILE_NAME = "interface.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interface:
    """The border of a trained model.

    Attributes:
      shape: of one raw example: (H, W, C) of uint8 images, or (D,) of float32 points.
      class_names: name of each class, in the order of the model's outputs.
      normalization: from grey levels to the network's inputs; None for points, which are taken as they are.
    """

    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalization: Normalization | None

    @property
    def takes_images(self) -> bool:
        """Whether a raw example is an image."""
        return len(self.shape) == 3

    @property
    def raw(self) -> tf.TensorSpec:
        """A batch of raw examples: uint8 `images` [N, H, W, C], or float32 `points` [N, D]."""
        if self.takes_images:
            return tf.TensorSpec([None, *self.shape], tf.uint8, name="images")
        return tf.TensorSpec([None, *self.shape], tf.float32, name="points")

    def normalize(self, raw: tf.Tensor) -> tf.Tensor:
        """Maps a batch of raw examples to the network's inputs, float32 of the same shape."""
        return raw if self.normalization is None else self.normalization.normalize(raw)

    def to_json(self) -> bytes:
        """Writes the interface as JSON that other programs can read too."""
        return (json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


def from_json(text: bytes, *, source: str) -> Interface:
    """Reads what `Interface.to_json` wrote.

    Args:
      text: the JSON.
      source: where it comes from, for the message.

    Returns:
      The interface.

    Raises:
      UserError: it is something else, or damaged.
    """
    try:
        values = json.loads(text)
        normalization = values["normalization"]
        return Interface(
            shape=tuple(int(size) for size in values["shape"]),
            class_names=tuple(str(name) for name in values["class_names"]),
            normalization=normalization
            and Normalization(**{key: tuple(value) for key, value in normalization.items()}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} is damaged: {type(error).__name__} {error}. Expected what a run has written: restore it from a "
            "copy, or give the training command again."
        ) from error
