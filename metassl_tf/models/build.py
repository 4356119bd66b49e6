"""From a value of `--model` to a network that is known to map inputs to logits."""

import keras

from metassl_tf.errors import UserError, near_match
from metassl_tf.models import MODELS
from metassl_tf.models.base import ModelSettings, check_model
from metassl_tf.models.dotted_path import is_dotted_path, model_from_path
from metassl_tf.settings import check_settings


def build_model(
    name: str,
    settings: ModelSettings | None,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    single_logit: bool = False,
) -> keras.Model:
    """Builds the network that `--model` names, and checks that it maps inputs to logits.

    Args:
      name: a key of `MODELS`, or `package.module:function` for a function that takes (input_shape, num_classes) and
        returns a keras.Model.
      settings: an instance of `MODELS[name]`, or None for its defaults; None for a function, which has no settings.
      input_shape: shape of one example, without the batch.
      num_classes: number of logits.
      single_logit: of two classes, learn one logit z and return (+z/2, -z/2).

    Returns:
      A model from float32 [batch, *input_shape] to float32 logits [batch, num_classes]. Models of the table are
      functional, and end in a Dense layer called "classifier"; those of a function may be anything else.

    Raises:
      UserError: the name is not known, a setting is out of its range or does not fit the inputs, the function cannot
        be imported or called, or the model does not do what is expected of it.
      TypeError: the settings are those of another model.
    """
    if single_logit and num_classes != 2:
        raise UserError(
            f"--single_logit tells two classes apart, and there are {num_classes}. Expected it to be left out."
        )
    outputs = 1 if single_logit else num_classes
    if is_dotted_path(name):
        if settings is not None:
            raise TypeError(f"The function {name} has no settings. Received {settings!r}.")
        model = model_from_path(name, input_shape, outputs)
    else:
        model = _from_table(name, settings, input_shape, outputs)
    check_model(name, model, input_shape, outputs)
    return _both_logits(model, name) if single_logit else model


def _both_logits(model: keras.Model, name: str) -> keras.Model:
    """(+z/2, -z/2) of a single logit z: the softmax of these two is the sigmoid of z.

    The weights paper (arXiv:2007.01293, appendix D) prints (z, -z), whose difference is 2 z. One logit leaves the last
    layer's Hessian without the directions that two classes share.
    """
    if not getattr(model, "outputs", None):
        raise UserError(
            f"--single_logit needs a functional or sequential model, and --model={name} is another kind. Expected it "
            "to be left out, or another model."
        )
    logit = model.outputs[0]
    halves = [keras.layers.Rescaling(scale, dtype="float32")(logit) for scale in (0.5, -0.5)]
    return keras.Model(model.inputs, keras.layers.Concatenate(name="logits")(halves), name=model.name)


def _from_table(
    name: str, settings: ModelSettings | None, input_shape: tuple[int, ...], num_classes: int
) -> keras.Model:
    if name not in MODELS:
        raise UserError(
            f"--model={name} is not known. Expected one of: {', '.join(MODELS)}; or package.module:function."
            f"{near_match(name, list(MODELS))}"
        )
    if settings is None:
        settings = MODELS[name]()
    if type(settings) is not MODELS[name]:
        raise TypeError(f"The model {name} takes {MODELS[name].__name__} settings. Received {settings!r}.")
    check_settings(settings)
    return settings.build(input_shape, num_classes)
