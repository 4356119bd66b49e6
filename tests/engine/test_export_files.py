"""What an export leaves on the disk: all of it or the old one, and without a file that Keras cannot write."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.normalize import Normalization
from metassl_tf.engine import export, interface
from metassl_tf.engine.interface import Interface
from metassl_tf.errors import UserError


class Scale(keras.layers.Layer):
    """A layer that cannot be written down: its argument is in no config."""

    def __init__(self, factor: np.ndarray) -> None:
        super().__init__()
        self.factor = factor

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.factor


class Failing(Scale):
    def get_config(self) -> dict[str, Any]:
        return {"factor": self.misspelt}


class Lock(Scale):
    def get_config(self) -> dict[str, Any]:
        return {"factor": threading.Lock()}


class Bytes(Scale):
    def get_config(self) -> dict[str, Any]:
        return {"factor": b"\xff"}


@pytest.fixture
def small() -> tuple[keras.Model, Interface]:
    """A network of color images of 2x2 with two classes."""
    inputs = keras.Input((2, 2, 3))
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    normalization = Normalization(mean=(0.1, 0.5, 0.9), std=(0.1, 0.2, 0.3))
    return network, Interface(shape=(2, 2, 3), class_names=("no", "yes"), normalization=normalization)


@pytest.fixture
def write(tmp_path: Path, small: tuple[keras.Model, Interface]) -> Callable[[], export.Exported]:
    """Exports the small network to tmp_path."""
    return lambda: export.export_network(*small, saved_model=tmp_path / "export", keras_model=tmp_path / "model.keras")


# What Keras itself raises for each layer: the test saves it with Keras alone first, so that a kind of error that is
# caught and no longer occurs, or occurs as another one after an upgrade, is noticed.
@pytest.mark.parametrize(
    ("layer", "error"),
    [(Scale, NotImplementedError), (Failing, AttributeError), (Lock, TypeError), (Bytes, ValueError)],
)
def test_layers_that_keras_cannot_write_cost_only_the_keras_file(
    layer: type[Scale],
    error: type[Exception],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    small: tuple[keras.Model, Interface],
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = keras.Sequential([keras.Input((2, 2, 3)), layer(np.array(2.0)), keras.layers.Flatten()])
    with pytest.raises(error):
        network.save(tmp_path_factory.mktemp("keras") / "model.keras")
    network.add(keras.layers.Dense(2))
    exported = export.export_network(
        network, small[1], saved_model=tmp_path / "export", keras_model=tmp_path / "model.keras"
    )
    assert exported.keras_model is None
    assert "model.keras is not written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert tf.saved_model.contains_saved_model(str(exported.saved_model))


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(OSError(28, "No space left on device"), UserError), (KeyboardInterrupt("stopped"), KeyboardInterrupt)],
)
def test_an_export_that_fails_leaves_the_old_one(
    tmp_path: Path,
    write: Callable[[], export.Exported],
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    seen: type[BaseException],
) -> None:
    write()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def save(_: tf.Module, folder: str, **__: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "saved_model.pb").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(seen, match=r"No space left on device|stopped"):
        write()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_a_kill_left_is_cleared_away_and_an_old_export_replaced(
    tmp_path: Path, write: Callable[[], export.Exported], small: tuple[keras.Model, Interface]
) -> None:
    write()
    for leftover in (".export.partial", ".export.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "saved_model.pb").write_bytes(b"half")
    small[0].layers[-1].bias.assign([0.0, 50.0])
    write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "model.keras"]
    images = tf.zeros([1, 2, 2, 3], tf.uint8)
    outputs = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"](images=images)
    assert outputs["class_name"].numpy() == [b"yes"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, write: Callable[[], export.Exported]) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a SavedModel, so it is not replaced"):
        write()
    assert (tmp_path / "export" / "thesis.tex").read_text() == "precious"


def test_an_interface_survives_json(small: tuple[keras.Model, Interface]) -> None:
    for original in (small[1], Interface(shape=(2,), class_names=("é", "1"), normalization=None)):
        assert interface.from_json(original.to_json(), source="") == original


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"shape": [2]}', b'{"shape": 2, "class_names": [], "normalization": null}']
)
def test_a_damaged_interface_is_named(text: bytes) -> None:
    with pytest.raises(UserError, match=r"here/interface\.json is damaged"):
        interface.from_json(text, source="here/interface.json")
