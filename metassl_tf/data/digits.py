"""scikit-learn's handwritten digits: 1,797 real grey images of 8x8 pixels that need no download.

The values 0 to 16 of the original are spread over uint8: round(value * 255 / 16). The test set is the first 597 of
`numpy.random.RandomState(split_seed).permutation(1797)`; the training examples keep the order of the rest, and the
stratified protocol labels the first N / 10 of each class in that order.
"""

import dataclasses

import numpy as np
from sklearn import datasets

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, Source
from metassl_tf.data.images import resize_images

_NUM_TEST = 597


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """The digits 0 to 9 as uint8 [8, 8, 1]. There is nothing to set."""

    def load(self, request: LoadRequest) -> Dataset:
        """Loads the images and sets the test examples apart.

        Args:
          request: `image_size`, `channels` and `split_seed` are used.

        Returns:
          1,200 training and 597 test examples; `ordered`, since the seed has already permuted them.
        """
        images, labels = datasets.load_digits(return_X_y=True)
        pixels = np.round(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
        pixels = resize_images(pixels, request.image_shape((8, 8, 1)))
        examples = Examples(pixels, labels.astype(np.int64), pixels.shape[1:])
        permutation = np.random.RandomState(request.split_seed).permutation(len(labels))
        return Dataset(
            name="digits",
            train=examples.take(permutation[_NUM_TEST:]),
            test=examples.take(permutation[:_NUM_TEST]),
            class_names=tuple(str(digit) for digit in range(10)),
            ordered=True,
        )
