"""Whatever is killed, and whenever: the same command again ends in the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.evaluator import Evaluator
from metassl_tf.engine.history import History
from metassl_tf.engine.trainer import Trainer
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


def final_state(workdir: Workdir) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir.checkpoints)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "save_counter" not in name}


def evaluations(workdir: Workdir) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    return [{name: row[name] for name in row if name not in ("seconds", "examples_per_second")} for row in rows]


def assert_same_run(left: Workdir, right: Workdir) -> None:
    assert evaluations(left) == evaluations(right)
    left_state, right_state = final_state(left), final_state(right)
    assert left_state.keys() == right_state.keys()
    for name, value in left_state.items():
        np.testing.assert_array_equal(value, right_state[name], err_msg=name)
    with np.load(left.splits) as left_split, np.load(right.splits) as right_split:
        assert str(left_split["hash"]) == str(right_split["hash"])


@pytest.fixture(scope="module")
def uninterrupted(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    workdir = Workdir(tmp_path_factory.mktemp("uninterrupted"))
    run.train(tiny_config(), workdir)
    return workdir


def die_at_call(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, *, after: bool) -> None:
    """Kills the run in one call of a method, before or after its work."""
    original = getattr(owner, name)
    calls = 0

    def deadly(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        result = original(self, *args, **kwargs)
        if calls == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, deadly)


@pytest.mark.parametrize(
    ("owner", "method", "call", "after"),
    [
        pytest.param(Trainer, "train", 4, True, id="between two calls of the loop"),
        pytest.param(Evaluator, "metrics", 4, False, id="during an evaluation"),
        pytest.param(History, "append", 2, False, id="before an evaluation is written"),
        pytest.param(History, "append", 2, True, id="after an evaluation is written"),
        pytest.param(Checkpoints, "save", 3, False, id="before a checkpoint"),
        pytest.param(Checkpoints, "save", 4, True, id="after a checkpoint"),
    ],
)
def test_killed_run_ends_in_the_same_bits(
    owner: type,
    method: str,
    call: int,
    after: bool,
    tiny_config: Callable[..., Config],
    uninterrupted: Workdir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workdir = Workdir(tmp_path)
    with monkeypatch.context() as patch:
        die_at_call(patch, owner, method, call, after=after)
        with pytest.raises(Killed):
            run.train(tiny_config(), workdir)
    assert not workdir.result.exists()
    run.train(tiny_config(), workdir)
    assert_same_run(uninterrupted, workdir)


def test_finished_run_is_finished_again_without_training(
    uninterrupted: Workdir, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = final_state(uninterrupted)
    result = json.loads(uninterrupted.result.read_text())
    uninterrupted.result.unlink()
    steps = []
    original = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, count: steps.append(int(count)) or original(self, count))
    again = run.train(tiny_config(), uninterrupted)
    assert sum(steps) == 0
    assert again["last"] == result["last"]
    for name, value in final_state(uninterrupted).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_half_a_checkpoint_is_passed_over(
    uninterrupted: Workdir,
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workdir = Workdir(tmp_path)
    with monkeypatch.context() as patch:
        die_at_call(patch, Checkpoints, "save", 4, after=True)
        with pytest.raises(Killed):
            run.train(tiny_config(), workdir)
    newest = tf.train.latest_checkpoint(str(workdir.checkpoints))
    data = Path(f"{newest}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    run.train(tiny_config(), workdir)
    assert Path(newest).name in caplog.text
    assert "damaged" in caplog.text
    assert_same_run(uninterrupted, workdir)


def test_chunks_of_steps_do_not_change_the_result(
    uninterrupted: Workdir, tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metassl_tf.engine.loop._next_call", lambda *_: 1)
    workdir = Workdir(tmp_path)
    run.train(tiny_config(), workdir)
    assert_same_run(uninterrupted, workdir)


def test_another_config_is_refused(uninterrupted: Workdir, tiny_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"--learning_rate=0.03.*--learning_rate=0.5"):
        run.train(tiny_config(learning_rate=0.5), uninterrupted)


def test_data_may_move_and_may_not_change(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, [60, 8, 8, 1], np.uint8)
    labels = np.arange(60) % 3
    workdir = Workdir(tmp_path / "run")

    def train_on(name: str, order: np.ndarray) -> None:
        path = tmp_path / name
        np.savez(path, x_train=images[order], y_train=labels[order], x_test=images, y_test=labels)
        changes = {"num_labeled": 9, "num_validation": 9, "batch_size": 3, "strong_policy": "digits"}
        run.train(tiny_config(dataset="npz", data_dir=str(path), **changes), workdir)

    train_on("first.npz", np.arange(60))
    workdir.result.unlink()
    train_on("moved.npz", np.arange(60))
    assert f"--data_dir={tmp_path / 'moved.npz'}\n" in workdir.config.read_text()
    with pytest.raises(UserError, match=r"the data changed since this run began. .* or start in a new --workdir"):
        train_on("changed.npz", np.arange(60)[::-1])
    assert f"--data_dir={tmp_path / 'moved.npz'}\n" in workdir.config.read_text()


def test_a_seed_is_another_run(uninterrupted: Workdir, tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    run.train(tiny_config(seed=1), workdir)
    assert evaluations(workdir) != evaluations(uninterrupted)
