"""uint8 images to float32 network inputs and back: (image / 255 - mean) / std per channel."""

import dataclasses

import numpy as np
import tensorflow as tf

from metassl_tf.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """An affine map of grey levels, per channel; the default maps 0..255 to [-1, 1] (x / 127.5 - 1).

    Attributes:
      mean: subtracted from image / 255; one number for all channels, or one per channel.
      std: divided by after that; positive, as many as `mean`.
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(np.isfinite(self.mean)):
            raise UserError(
                f"mean={self.mean} and std={self.std} do not fit. Expected one of each, or one per channel."
            )
        if not all(np.isfinite(self.std)) or min(self.std) <= 0.0:
            raise UserError(f"std={self.std} cannot be divided by. Expected positive numbers, in units of 255 levels.")

    def scale_and_offset(self, channels: int | None) -> tuple[np.ndarray, np.ndarray]:
        """What a level is multiplied with, and what is added to that: float64, both [1] or both [channels].

        Args:
          channels: of the images; None where it is not known.

        Raises:
          UserError: the statistics are those of another number of channels.
        """
        if channels is not None and len(self.mean) not in (1, channels):
            raise UserError(
                f"The normalization has {len(self.mean)} channels, the images have {channels}. "
                "Expected one mean for all channels, or one per channel."
            )
        scale = 1.0 / (255.0 * np.array(self.std))
        return scale, -np.array(self.mean) / np.array(self.std)

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Maps uint8 [..., C] to float32 [..., C]."""
        scale, offset = self.scale_and_offset(images.shape[-1])
        return tf.cast(images, tf.float32) * tf.constant(scale, tf.float32) + tf.constant(offset, tf.float32)

    def denormalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps float [..., C] back to uint8 [..., C]: the inverse of `normalize`, rounded and clipped."""
        scale, offset = self.scale_and_offset(inputs.shape[-1])
        levels = (tf.cast(inputs, tf.float32) - tf.constant(offset, tf.float32)) / tf.constant(scale, tf.float32)
        return tf.cast(tf.clip_by_value(tf.round(levels), 0.0, 255.0), tf.uint8)

    def mean_fill(self) -> tuple[int, ...]:
        """The mean as grey levels: the fill that becomes (nearly) zero in the network's input, as in UDA."""
        return tuple(round(min(max(255.0 * mean, 0.0), 255.0)) for mean in self.mean)
