"""What is exported is the trained model: the same probabilities, in any batch, with or without this package."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.data.images import decode_image
from metassl_tf.engine import export, interface, setup
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.init_from import initialize
from metassl_tf.engine.trained import averaged_network, interface_of
from tests.trained_runs import PICTURE_CLASSES, PICTURE_SHAPE, config_of, trained

KINDS = ("digits", "pictures", "points")
BATCH_SIZES = (1, 7)

# Runs where importing this package, however it is installed, is an error.
CLIENT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("metassl_tf", "keras_hub", "official"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf

inputs = np.load("inputs.npz")
outputs = {}
for kind in KINDS:
    loaded = tf.saved_model.load(f"exports/{kind}")
    serve = loaded.signatures["serving_default"]
    name = "points" if kind == "points" else "images"
    for size in BATCH_SIZES:
        for key, value in serve(**{name: tf.constant(inputs[kind][:size])}).items():
            outputs[f"{kind} default {size} {key}"] = value.numpy()
        if name == "images":
            encoded = tf.stack([tf.io.encode_png(image) for image in inputs[kind][:size]])
            for key, value in loaded.signatures["serving_bytes"](encoded=encoded).items():
                outputs[f"{kind} bytes {size} {key}"] = value.numpy()
for key, value in outputs.items():
    outputs[key] = value.astype(str) if value.dtype == object else value
np.savez("outputs.npz", **outputs)
"""


def raw_examples(kind: str) -> np.ndarray:
    generator = np.random.default_rng(1)
    if kind == "points":
        return generator.normal(size=(7, 2)).astype(np.float32)
    return generator.integers(0, 256, (7, *(PICTURE_SHAPE if kind == "pictures" else (8, 8, 1))), np.uint8)


def in_memory(kind: str) -> np.ndarray:
    """Probabilities by the run's own learner and views, restored from the last checkpoint."""
    experiment = setup.build(config_of(kind))
    Checkpoints(trained(kind).checkpoints, experiment.learner.state_variables).restore_newest()
    logits = experiment.learner.predict(experiment.views.plain(tf.constant(raw_examples(kind))), parameters="ema")
    return tf.nn.softmax(logits).numpy()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outputs of the exports in a process that has TensorFlow and not this package."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "exports").mkdir()
    for kind in KINDS:
        (folder / "exports" / kind).symlink_to(trained(kind).export)
    np.savez(folder / "inputs.npz", **{kind: raw_examples(kind) for kind in KINDS})
    script = f"KINDS = {KINDS}\nBATCH_SIZES = {BATCH_SIZES}\n{CLIENT}"
    subprocess.run([sys.executable, "-P", "-c", script], cwd=folder, check=True, timeout=300)
    return np.load(folder / "outputs.npz")


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_without_this_package_gets_the_same_probabilities(client: Any, kind: str, size: int) -> None:
    expected = in_memory(kind)[:size]
    received = client[f"{kind} default {size} probabilities"]
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, atol=1e-5)
    class_id = client[f"{kind} default {size} class_id"]
    assert class_id.dtype == np.int64
    np.testing.assert_array_equal(class_id, expected.argmax(axis=1))
    names = np.array(interface.from_json(trained(kind).interface.read_bytes(), source="").class_names)
    np.testing.assert_array_equal(client[f"{kind} default {size} class_name"], names[class_id])


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("kind", ["digits", "pictures"])
def test_encoded_images_of_the_native_size_give_the_same(client: Any, kind: str, size: int) -> None:
    for key in ("probabilities", "class_id", "class_name"):
        np.testing.assert_array_equal(client[f"{kind} bytes {size} {key}"], client[f"{kind} default {size} {key}"])


@pytest.mark.parametrize("kind", ["digits", "pictures"])
def test_encoded_images_of_any_size_and_kind_are_decoded_as_in_training(kind: str) -> None:
    random = np.random.default_rng(2).integers
    encoded = tf.stack(
        [
            tf.io.encode_png(random(0, 256, (8, 8, 1), np.uint8)),
            tf.io.encode_png(random(0, 256, (31, 5, 2), np.uint8)),
            tf.io.encode_png(random(0, 256, (12, 10, 3), np.uint8)),
            tf.io.encode_png(random(0, 256, (20, 20, 4), np.uint8)),
            tf.io.encode_jpeg(random(0, 256, (40, 64, 3), np.uint8)),
            tf.io.encode_jpeg(random(0, 256, (9, 9, 1), np.uint8)),
        ]
    )
    loaded = tf.saved_model.load(str(trained(kind).export))
    shape = PICTURE_SHAPE if kind == "pictures" else (8, 8, 1)
    images = tf.stack([decode_image(content, shape) for content in encoded])
    received = loaded.signatures["serving_bytes"](encoded=encoded)
    expected = loaded.signatures["serving_default"](images=images)
    np.testing.assert_allclose(received["probabilities"], expected["probabilities"], atol=1e-6)
    assert len(np.unique(np.round(expected["probabilities"], 4), axis=0)) > 1


def test_points_have_no_encoded_form() -> None:
    signatures = tf.saved_model.load(str(trained("points").export)).signatures
    assert list(signatures) == ["serving_default"]
    assert set(tf.saved_model.load(str(trained("digits").export)).signatures) == {"serving_default", "serving_bytes"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_keras_file_takes_raw_examples(kind: str) -> None:
    model = keras.models.load_model(trained(kind).model)
    raw = raw_examples(kind)
    np.testing.assert_allclose(model(raw), in_memory(kind), atol=1e-5)
    assert model.input.dtype == raw.dtype
    network = model.layers[-2]
    normalized = model.get_layer("normalization")(raw) if kind != "points" else raw
    np.testing.assert_allclose(tf.nn.softmax(network(normalized)), model(raw), atol=1e-6)


def test_the_keras_file_is_something_to_start_from() -> None:
    experiment = setup.build(config_of("digits"))
    initialize(experiment.learner, str(trained("digits").model))
    values = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(trained("digits").checkpoints)))
    for role in ("model", "ema"):
        for position, variable in enumerate(experiment.learner.state_variables[role]):
            expected = values.get_tensor(f"ema/{position}/.ATTRIBUTES/VARIABLE_VALUE")
            np.testing.assert_array_equal(variable.numpy(), expected)


def test_every_form_says_what_the_classes_are() -> None:
    workdir = trained("pictures")
    with zipfile.ZipFile(workdir.model) as archive:
        texts = [archive.read("interface.json"), workdir.interface.read_bytes()]
    texts.append((workdir.export / "assets.extra" / "interface.json").read_bytes())
    for text in texts:
        assert tuple(json.loads(text)["class_names"]) == PICTURE_CLASSES
        assert tuple(json.loads(text)["shape"]) == PICTURE_SHAPE


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_devices_and_precision_of_the_run_do_not_matter(
    tmp_path: Path, mirrored: tf.distribute.Strategy, precision: str, replicas: int
) -> None:
    config = config_of("digits")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, precision=precision))
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    experiment = setup.build(config, strategy=strategy)
    for position, average in enumerate(experiment.learner.ema):
        average.assign(average.value + 0.1 * (-1) ** position if position % 3 else average.value * 1.5)
    export.export_network(
        averaged_network(experiment),
        interface_of(experiment),
        saved_model=tmp_path / "export",
        keras_model=tmp_path / "model.keras",
    )
    raw = tf.constant(raw_examples("digits"))
    inputs = experiment.views.plain(raw)
    expected = tf.nn.softmax(tf.cast(experiment.learner.predict(inputs, parameters="ema"), tf.float32))
    other = tf.nn.softmax(tf.cast(experiment.learner.predict(inputs, parameters="raw"), tf.float32))
    assert np.abs(expected - other).max() > 0.01
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    # bfloat16 has 8 bits: kernels that differ between eager and graph mode round differently.
    tolerance = 1e-5 if precision == "float32" else 2e-2
    received = loaded.signatures["serving_default"](images=raw)["probabilities"]
    assert received.dtype == tf.float32
    np.testing.assert_allclose(received, expected, atol=tolerance)
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(raw), expected, atol=tolerance)
