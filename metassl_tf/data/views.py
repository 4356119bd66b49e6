"""How raw examples become the inputs of a network: weak and strong views, and plain ones for evaluation.

The only module between the augmentations and the batches that knows what an example is: an image or a point.
"""

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill
from metassl_tf.augment.normalize import Normalization
from metassl_tf.augment.policies import Policy
from metassl_tf.augment.strong import strong_augment
from metassl_tf.augment.weak import weak_augment
from metassl_tf.data.examples import Examples
from metassl_tf.data.images import decode_image

SeedOf = Callable[[str], tf.Tensor]
Reader = Callable[[tf.Tensor], tf.Tensor]


def reader(examples: Examples) -> Reader:
    """Makes the function that fetches raw examples inside a `tf.data` map.

    Args:
      examples: in memory, or streamed by path and decoded when fetched.

    Returns:
      A function from int64 [N] to the examples there, uint8 [N, H, W, C] or float32 [N, D].
    """
    with tf.device("/CPU:0"):  # an eager tensor, so that graphs refer to it instead of each holding a copy
        inputs = tf.constant(examples.inputs)
    if not examples.streamed:
        return lambda index: tf.gather(inputs, index)
    height, width, channels = examples.shape

    def read(index: tf.Tensor) -> tf.Tensor:
        images = tf.map_fn(
            lambda path: decode_image(tf.io.read_file(path), (height, width, channels)),
            tf.gather(inputs, index),
            fn_output_signature=tf.TensorSpec((height, width, channels), tf.uint8),
        )
        return tf.ensure_shape(images, [index.shape[0], height, width, channels])

    return read


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageViews:
    """Views of uint8 images [N, H, W, C]; every view is float32 [N, H, W, C].

    Attributes:
      flip: whether the weak augmentation mirrors.
      padding: largest shift of the weak augmentation, in pixels.
      padding_mode: `reflect` or `constant`.
      policy: RandAugment policy of the strong view.
      fill: what constant padding, geometry and boxes uncover.
      normalization: from grey levels to network inputs.
    """

    flip: bool
    padding: int
    padding_mode: str
    policy: Policy
    fill: Fill
    normalization: Normalization

    def plain(self, raw: tf.Tensor) -> tf.Tensor:
        """The images as they are, normalised."""
        return self.normalization.normalize(raw)

    def make(self, wanted: Mapping[str, str], raw: tf.Tensor, seed_of: SeedOf) -> dict[str, tf.Tensor]:
        """Makes the views of one side of a batch.

        Args:
          wanted: name of each view -> `weak` or `strong`. The view that is named `weak` is what the other side of a
            consistency loss sees: a policy may let strong views start from it.
          raw: uint8 [N, H, W, C].
          seed_of: view name -> seed int32 [2].

        Returns:
          name -> float32 [N, H, W, C].
        """
        views = {name: self._weak(raw, seed_of(name)) for name, kind in wanted.items() if kind == "weak"}
        weak_view = views.get("weak")
        for name, kind in wanted.items():
            if kind == "strong":
                start = self._weak(raw, seed_of(f"{name} start")) if weak_view is None else weak_view
                views[name] = strong_augment(
                    raw, start, seed_of(name), policy=self.policy, weak=self._weak, fill=self.fill
                )
        return {name: self.normalization.normalize(views[name]) for name in wanted}

    def _weak(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return weak_augment(
            images, seed, flip=self.flip, padding=self.padding, padding_mode=self.padding_mode, fill=self.fill
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointViews:
    """Views of float32 points [N, D]: weak ones are the points, strong ones have Gaussian noise added.

    Attributes:
      noise: standard deviation of the noise.
    """

    noise: float

    def plain(self, raw: tf.Tensor) -> tf.Tensor:
        """The points themselves."""
        return raw

    def make(self, wanted: Mapping[str, str], raw: tf.Tensor, seed_of: SeedOf) -> dict[str, tf.Tensor]:
        """Makes the views of one side of a batch; see `ImageViews.make`."""
        return {
            name: raw
            if kind == "weak"
            else raw + self.noise * tf.random.stateless_normal(raw.shape, seed_of(name), alg="philox")
            for name, kind in wanted.items()
        }


Views = ImageViews | PointViews
