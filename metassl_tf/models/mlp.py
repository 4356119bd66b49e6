"""A multilayer perceptron, for points and small images.

Two hidden layers of 100 ReLU units are the toy model of "Not All Unlabeled Data are Equal" (arXiv:2007.01293).
The Two Moons model of Meta Pseudo Labels (arXiv:2003.10580) has two of 8 sigmoid units and parameters drawn from
U(-0.1, 0.1): `--hidden_units=8,8 --activation=sigmoid --init_range=0.1`.
"""

import dataclasses

import keras

from metassl_tf.models.base import classifier, inputs_of
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP:
    """Settings of the multilayer perceptron: Flatten, hidden Dense layers, classifier."""

    hidden_units: tuple[int, ...] = setting(
        (100, 100), "Units of each hidden layer; none gives multinomial logistic regression.", minimum=1
    )
    activation: str = setting("relu", "Activation function of the hidden layers.", choices=("relu", "sigmoid", "tanh"))
    init_range: float = setting(
        0.0, "Draw kernels and biases from U(-x, x); 0 draws kernels Glorot-uniform, with zero biases.", minimum=0
    )
    dropout: float = setting(0.0, "Dropout rate before the classifier.", minimum=0, below=1)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network; see `ModelSettings.build`."""
        inputs = inputs_of(input_shape)
        features = keras.layers.Flatten(name="flatten")(inputs)  # [batch, product of input_shape]
        for number, units in enumerate(self.hidden_units, start=1):
            features = keras.layers.Dense(
                units,
                activation=self.activation,
                kernel_initializer=self._initializer("glorot_uniform"),
                bias_initializer=self._initializer("zeros"),
                name=f"hidden{number}",
            )(features)  # [batch, units]
        logits = classifier(
            features, num_classes, self.dropout, self._initializer("glorot_uniform"), self._initializer("zeros")
        )
        return keras.Model(inputs, logits, name="mlp")

    def _initializer(self, default: str) -> str | keras.initializers.Initializer:
        """Returns a new initialiser at each call: a Keras initialiser gives equal shapes equal values."""
        if self.init_range == 0:
            return default
        return keras.initializers.RandomUniform(-self.init_range, self.init_range)
