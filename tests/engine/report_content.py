"""What the page is made from, made up here, and a reader of the page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metassl_tf.data.examples import Examples, Modality
from metassl_tf.engine.learned_weights import LearnedWeights, Measure
from metassl_tf.engine.report.content import Content, Predictions, Regions
from metassl_tf.meta.weight_table import PERCENTILES

HOSTILE = "<script>alert(\"x\")</script> & 'y' $\\frac$ 猫 \udcff"
VOID = {"br", "img", "link", "meta"}


def make_examples(count: int, num_classes: int, modality: Modality, *, named: bool = False) -> Examples:
    random = np.random.RandomState(count)
    labels = np.arange(count, dtype=np.int64) % num_classes
    names = np.array([f"{HOSTILE[:-1]}-{number}.png" for number in range(count)]) if named else None
    if modality == "points":
        return Examples(random.randn(count, 2).astype(np.float32), labels, (2,), names)
    return Examples(random.randint(0, 256, (count, 6, 5, 3)).astype(np.uint8), labels, (6, 5, 3), names)


def predictions(count: int, num_classes: int, modality: Modality, *, name: str, wrong: int) -> Predictions:
    """The first `wrong` examples are taken for the next class, the more confidently the earlier they are."""
    told = make_examples(count, num_classes, modality, named=True)
    shown = (told.labels + (np.arange(count) < wrong)) % num_classes
    confidence = np.linspace(0.95, 0.7, count)[:, None]
    probabilities = np.full((count, num_classes), 1.0) * (1.0 - confidence) / (num_classes - 1)
    probabilities[np.arange(count), shown] = confidence[:, 0]
    return Predictions(name=name, probabilities=probabilities, examples=told)


def metrics(accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "loss": 1.0 - accuracy, "calibration_error": 0.03125, "recall": [accuracy, None]}


def make_rows(sets: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "seconds": 1.5 * step,
            "examples_per_second": 100.0,
            "train": {
                "loss": 2.0 / step,
                "loss/consistency": 1e-4 * step,
                "share_above_threshold": 0.5,
                "norm_of_it": 3.0,
            },
            **{name: {"raw": metrics(0.4 + step / 100), "ema": metrics(0.5 + step / 100)} for name in sets},
        }
        for step in (10, 20, 30)
    ]


def make_weights(
    weight: npt.ArrayLike, *, measure: Measure = "given_label", trustworthy: npt.ArrayLike, **changes: Any
) -> LearnedWeights:
    """Weights of the first examples of `make_examples(.., num_classes=3, ..)`; by default everything is known."""
    values, deserving = np.asarray(weight, np.float32), np.asarray(trustworthy, bool)
    truth = np.arange(len(values), dtype=np.int64) % 3
    wrong = (truth + 1) % 3
    columns: dict[str, Any] = {
        "weight": values,
        "updates": np.arange(len(values), dtype=np.int64) % 5 + 10,
        "influence": np.zeros(len(values), np.float32),
        "given_label": np.where(deserving, truth, wrong) if measure == "given_label" else None,
        "truth": np.where(deserving, truth, -1) if measure == "pollution" else truth,
        "predicted": np.where(deserving, truth, wrong) if measure == "pseudo_label" else truth,
        "confidence": np.linspace(0.9, 0.5, len(values)),
        "agreement": np.linspace(0.6, 0.1, len(values)),
        "trustworthy": deserving,
        "measure": measure,
        "measured": np.ones(len(values), bool),
        **changes,
    }
    return LearnedWeights(**columns)


def with_summaries(rows: list[dict[str, Any]], weight: npt.NDArray[np.float32], **changes: float) -> Any:
    """The same rows, in which the weights go from 1 to their final values."""
    for row in rows:
        values = 1.0 + (weight - 1.0) * row["step"] / rows[-1]["step"]
        percentiles = {f"percentile_{rank}": float(np.percentile(values, rank)) for rank in PERCENTILES}
        row["weights"] = {**percentiles, "mean": float(values.mean()), "share_zero": 0.0, "skipped_updates": 0}
        row["weights"] |= {"updates_per_example": 12.0, **changes}
        row["train"] |= {"weights/influence_size": 0.5 / row["step"], "weights/validation_loss": 7.0 / row["step"]}
    return rows


def make_weighted(learned: LearnedWeights, **changes: Any) -> Content:
    """The content of a run with a learned weight for each of its unlabeled examples."""
    rows = with_summaries(make_rows(("test", "validation")), learned.weight)
    unlabeled = make_examples(len(learned.weight), 3, changes.get("modality", "image"), named=True)
    return make_content(**{"rows": rows, "unlabeled": unlabeled, "weights": learned, **changes})


def make_lessons(targets: Sequence[Sequence[float]], *, first: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What an evaluation records of examples 0, 10, ... with these distributions, of which the first had others."""
    now, before = np.array(targets), np.array(first)
    order = np.argsort(-now, axis=1, kind="stable")[:, :10]
    return {
        "target_entropy": float(-np.sum(now * np.log(now), axis=1).mean()),
        "changed_targets": float(np.mean(now.argmax(axis=1) != before.argmax(axis=1))),
        "targets": [
            {"example": 10 * number, "classes": classes.tolist(), "probabilities": row[classes].tolist()}
            for number, (row, classes) in enumerate(zip(now, order, strict=True))
        ],
    }


def make_taught(targets: Mapping[int, Sequence[Sequence[float]]], **changes: Any) -> Content:
    """The content of a run with a teacher that gave these distributions at these steps."""
    first = next(iter(targets.values()))
    (row, *_), num_classes = make_rows(("test", "validation")), len(first[0])
    rows = [
        {
            **row,
            "step": step,
            "train": {**row["train"], "feedback/cosine": 0.125, "feedback/baseline": 0.5, "student/agreement": 0.25},
            "labeled": {"raw": {"accuracy": 0.5}},
            "teacher_labeled": {"raw": {"accuracy": 0.75}},
            "lessons": make_lessons(now, first=first),
        }
        for step, now in targets.items()
    ]
    return make_content(**{"rows": rows, "num_classes": num_classes, **changes})


def make_content(
    *,
    num_classes: int = 3,
    modality: Modality = "image",
    sets: tuple[str, ...] = ("test", "validation"),
    wrong: int = 30,
    **changes: Any,
) -> Content:
    rows = make_rows(sets)
    best = {"step": 20, **{name: rows[1][name] for name in sets}} if "validation" in sets else None
    median = {kind: {"test_accuracy": 0.654321} for kind in ("raw", "ema")} if "test" in sets else {}
    result = {
        "test_accuracy": 0.8,
        "step": 30,
        "last": {name: rows[-1][name] for name in sets},
        "best_on_validation": best,
        "median_of_last_20": median,
        "seconds": 3725.0,
        "examples_per_second": 1234.5,
        "peak_memory_mb": 987.6,
        "seed": 7,
        "split_hash": "0123456789abcdef",
        "num_parameters": 1_470_000,
        "num_examples": {"labeled": 12, "unlabeled": 50, "validation": 5, "meta_validation": 9, "test": 120},
        "classes": ["a"] * num_classes,
        "versions": {"metassl_tf": "0.1.0", "tensorflow": "2.20.0"},
        "config": {
            "dataset": "made_up",
            "algorithm": "fixmatch",
            "meta": ["per_example_weights"],
            "model": "mlp",
            "widths": (1, 2),
            "data_dir": HOSTILE,
            "initial_weight": 1.0,
            "weight_optimizer": "masked_adam",
            "weight_learning_rate": 0.01,
        },
    }
    views = {f"{side}/weak": make_examples(4, 2, "image").inputs for side in ("labeled", "unlabeled")}
    axis = np.linspace(-2.0, 2.0, 9)
    grid = np.full((9, 9, num_classes), 1.0 / num_classes)
    values: dict[str, Any] = {
        "result": result,
        "rows": rows,
        "flagfile": f"--dataset=made_up\n--data_dir={HOSTILE}\n",
        "workdir": Path("runs/a & b"),
        "class_names": (HOSTILE, *(f"class {number}" for number in range(1, num_classes))),
        "modality": modality,
        "labeled": make_examples(12, num_classes, modality, named=True),
        "unlabeled": make_examples(50, num_classes, modality),
        "predictions": predictions(120, num_classes, modality, name=sets[0], wrong=wrong) if sets else None,
        "views": views if modality == "image" else {},
        "regions": Regions(horizontal=axis, vertical=axis, probabilities=grid) if modality == "points" else None,
        "weights": None,
        **changes,
    }
    return Content(**values)


class Page(HTMLParser):
    """Reads a page, insisting that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def having(self, attribute: str) -> Iterator[str]:
        return (attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes)


def titles(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)
