"""Batched image augmentation as pure functions `(images, seed) -> images`, for use inside `tf.data` maps."""
