"""Which variables of a model are kernels, normalisation, statistics and seeds."""

import keras
import pytest
import tensorflow as tf

from metassl_tf.learner import variables


class Block(keras.layers.Layer):
    """A layer that holds others in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [keras.layers.Dense(4, name="held"), keras.layers.LayerNormalization(name="held_norm")]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.parts[1](self.parts[0](inputs))


@pytest.fixture
def model() -> keras.Model:
    """One of each kind of layer; some are in a model within the model."""
    tokens = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(10, 4, name="embedding")(tokens)
    inner_input = keras.Input((6, 4))
    hidden = keras.layers.Conv1D(4, 3, name="conv")(inner_input)
    hidden = keras.layers.BatchNormalization(name="batch_norm")(hidden)
    hidden = keras.layers.Dropout(0.5, name="dropout")(hidden)
    inner = keras.Model(inner_input, keras.layers.LayerNormalization(name="layer_norm")(hidden), name="inner")
    hidden = keras.layers.SeparableConv1D(4, 2, name="separable")(Block()(inner(embedded)))
    hidden = keras.layers.MultiHeadAttention(2, 2, dropout=0.5, name="attention")(hidden, hidden)
    hidden = keras.layers.GroupNormalization(2, name="group_norm")(hidden)
    hidden = keras.layers.RMSNormalization(name="rms_norm")(hidden)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(tokens, keras.layers.Dense(2, name="classifier")(pooled))


def paths(model: keras.Model, coverage: str) -> set[str]:
    covered = variables.decayed(model, coverage)
    return {
        "/".join(variable.path.split("/")[-2:])
        for variable, decays in zip(model.trainable_variables, covered, strict=True)
        if decays
    }


KERNELS = {
    *("conv/kernel", "held/kernel", "classifier/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel"),
    *("query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"),
}
BIASES = {
    *("conv/bias", "held/bias", "classifier/bias", "separable/bias"),
    *("query/bias", "key/bias", "value/bias", "attention_output/bias"),
}
NORMALIZATION = {
    *("batch_norm/gamma", "batch_norm/beta", "layer_norm/gamma", "layer_norm/beta"),
    *("held_norm/gamma", "held_norm/beta"),
    *("group_norm/gamma", "group_norm/beta", "rms_norm/scale"),
}


def test_kernels_are_those_of_dense_convolution_and_attention(model: keras.Model) -> None:
    assert paths(model, "kernels") == KERNELS


def test_all_but_norm_leaves_out_normalisation_at_any_depth(model: keras.Model) -> None:
    assert paths(model, "all_but_norm") == KERNELS | BIASES | {"embedding/embeddings"}


def test_all_is_every_trainable_variable(model: keras.Model) -> None:
    assert paths(model, "all") == KERNELS | BIASES | NORMALIZATION | {"embedding/embeddings"}


def test_coverage_names_are_those_of_the_setting() -> None:
    assert variables.COVERAGES == ("kernels", "all_but_norm", "all")


def test_statistics_and_seeds_share_the_untrained_variables(model: keras.Model) -> None:
    statistics, seeds = variables.statistics(model), variables.seeds(model)
    assert [variable.name for variable in statistics] == ["moving_mean", "moving_variance"]
    assert len(seeds) == 2  # of dropout and of attention
    assert all(tf.as_dtype(variable.dtype).is_integer and variable.shape == (2,) for variable in seeds)
    assert {id(variable) for variable in statistics + seeds} == {
        id(variable) for variable in model.non_trainable_variables
    }


def test_counts_of_a_normalization_layer_are_no_statistics() -> None:
    inputs = keras.Input((2,))
    layer = keras.layers.Normalization()
    layer.adapt(tf.constant([[0.0, 1.0], [2.0, 3.0]]))
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    assert "count" in {variable.name for variable in model.non_trainable_variables}
    assert [variable.name for variable in variables.statistics(model)] == ["mean", "variance"]
