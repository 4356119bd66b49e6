"""The order of examples: a permutation in every pass, and a function of seed and step alone."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.data import order

SEED = (1, 2)


def positions(*, batch_size: int, size: int, steps: int, start: int = 0, seed: tuple[int, int] = SEED) -> np.ndarray:
    """The examples of consecutive steps, one after the other."""
    return np.concatenate(
        [
            order.batch_indices(
                tf.constant(seed), tf.constant(step, tf.int64), batch_size=batch_size, size=size
            ).numpy()
            for step in range(start, start + steps)
        ]
    )


@pytest.mark.parametrize(
    ("batch_size", "size"),
    [
        (5, 20),  # passes end with batches
        (6, 20),  # a batch holds the end of one pass and the beginning of the next
        (64, 20),  # a batch is longer than three passes
        (4, 1),
        (3, 2),
        (7, 3),
        (1, 5),
        (100, 1257),  # digits
    ],
)
def test_every_pass_is_a_permutation(batch_size: int, size: int) -> None:
    passes = 4
    steps = -(-passes * size // batch_size)
    sequence = positions(batch_size=batch_size, size=size, steps=steps)[: passes * size]
    for one in sequence.reshape(passes, size):
        np.testing.assert_array_equal(np.sort(one), np.arange(size))


def test_passes_differ_from_each_other_and_from_the_sorted_order() -> None:
    passes = positions(batch_size=30, size=30, steps=10).reshape(10, 30)
    assert len({one.tobytes() for one in (*passes, np.arange(30))}) == 11


def test_permutations_have_no_favourite_places() -> None:
    """The mean over many passes of what stands at each place is the mean of the set."""
    passes = positions(batch_size=20_000, size=10, steps=1).reshape(2000, 10)
    # Standard deviation of a mean of 2000 uniform draws from 0..9: 2.87 / sqrt(2000) = 0.064.
    np.testing.assert_allclose(passes.mean(axis=0), 4.5, atol=5 * 0.064)
    assert np.abs(np.corrcoef(passes, rowvar=False)[0, 1] + 1 / 9) < 0.1  # as without replacement


def test_batch_size_cuts_the_same_endless_sequence() -> None:
    whole = positions(batch_size=60, size=17, steps=1)
    for batch_size in (1, 4, 20):
        np.testing.assert_array_equal(positions(batch_size=batch_size, size=17, steps=60 // batch_size), whole)


def test_resumed_order_continues_the_interrupted_one() -> None:
    whole = positions(batch_size=6, size=20, steps=12)
    np.testing.assert_array_equal(positions(batch_size=6, size=20, steps=5, start=7), whole[7 * 6 :])


def test_seeds_give_different_orders() -> None:
    seeds = [(1, 2), (2, 1), (1, 3), (-1, 2)]
    orders = {positions(batch_size=30, size=30, steps=1, seed=seed).tobytes() for seed in seeds}
    assert len(orders) == len(seeds)


def test_order_is_the_same_in_a_dataset() -> None:
    def indices(step: tf.Tensor) -> tf.Tensor:
        return order.batch_indices(tf.constant(SEED), step, batch_size=6, size=20)

    dataset = tf.data.Dataset.range(5).map(indices, num_parallel_calls=2)
    received = np.concatenate([batch.numpy() for batch in dataset])
    np.testing.assert_array_equal(received, positions(batch_size=6, size=20, steps=5))
    assert dataset.element_spec == tf.TensorSpec([6], tf.int64)


def test_order_far_into_a_run_is_still_a_permutation() -> None:
    """Step 2^20 of a batch of 448: positions are beyond 2^28, as in the published schedules."""
    size, start = 448, 2**20
    np.testing.assert_array_equal(np.sort(positions(batch_size=448, size=size, steps=1, start=start)), np.arange(size))


def test_every_name_and_run_has_a_seed_of_its_own() -> None:
    names = ["order labeled", "order unlabeled", "view labeled weak", "draw mixup"]
    seeds = [order.named_seed(run, name) for run, name in itertools.product((0, 1, 10, 2**31, 2**40), names)]
    assert len({seed.numpy().tobytes() for seed in seeds}) == len(seeds)
    assert all(seed.dtype == tf.int32 and seed.shape == [2] for seed in seeds)


def test_named_seed_is_the_same_in_every_process() -> None:
    """Python's own hash of a string is not."""
    assert order.named_seed(0, "order labeled").numpy().tolist() == [-263149467, 1915861601]


def test_every_step_has_a_seed_of_its_own() -> None:
    seed = tf.constant(SEED)
    seeds = {order.at_step(seed, tf.constant(step, tf.int64)).numpy().tobytes() for step in range(100)}
    others = {order.at_step(seed + 1, tf.constant(step, tf.int64)).numpy().tobytes() for step in range(100)}
    assert len(seeds | others) == 200
