"""Imports in metassl_tf go one way: a module imports from its own package and from the rungs below it."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "metassl_tf"
ROOT = Path(__file__).parent.parent
BINARIES = {"train", "evaluate", "export", "label"}
LADDER = (  # the lowest rung first
    {"errors"},
    {"settings"},
    {"hypergrad"},
    {"losses", "models", "augment"},
    {"algorithms"},
    {"data"},
    {"learner"},
    {"meta"},
    {"config"},
    {"flagfile"},
    {"engine", "choices"},
    {"flag_help"},
    {"flag_definitions"},
    BINARIES,
)
RUNG = {unit: number for number, units in enumerate(LADDER) for unit in units}

# Third-party packages that only some modules may import (a unit, or a module within one); the rest may not.
RESTRICTED = {
    "absl": BINARIES | {"flag_help", "flag_definitions"},
    # Built on Keras 2, which does not mix with Keras 3: only what makes the devices' strategy is used.
    "official": {"engine"},
    "orbit": {"engine"},
    "tf_keras": set[str](),
    "tools": set[str](),
    "tests": set[str](),
}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of every import, `from a import b` as `a.b`, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = "." * node.level + (f"{node.module}." if node.module else "")
            yield from ((node.lineno, f"{parent}{alias.name}") for alias in node.names)


def fault(importer: str, imported: str) -> str | None:
    """Says what is wrong with one import, or None. `importer` is a dotted name below metassl_tf."""
    if imported.startswith("."):
        return "is relative"
    top, _, rest = imported.partition(".")
    if top != PACKAGE:
        allowed = RESTRICTED.get(top)
        if allowed is None or any(f"{importer}.".startswith(f"{module}.") for module in allowed):
            return None
        return f"is allowed only in {', '.join(sorted(allowed)) or 'no module'}"
    own, other = importer.partition(".")[0], rest.partition(".")[0]
    if own == other or other == "__version__":
        return None
    if other not in RUNG:
        return "is not on the ladder"
    return None if RUNG[other] < RUNG[own] else f"goes up or sideways: {own} is no higher than {other}"


def violations(sources: Mapping[str, str]) -> list[str]:
    """Checks modules against the ladder.

    Args:
        sources: the source text of each module, by its dotted name below metassl_tf.

    Returns:
        One sentence for every wrong import and every module that stands on no rung.
    """
    found = []
    for importer, source in sources.items():
        unit = importer.partition(".")[0]
        if unit not in RUNG:
            found.append(f"{importer}: {unit} is not on the ladder")
            continue
        for line, imported in imported_modules(source):
            problem = fault(importer, imported)
            if problem:
                found.append(f"{importer}, line {line}: the import of {imported} {problem}")
    return found


def package_sources() -> dict[str, str]:
    root = ROOT / PACKAGE
    paths = {path: path.relative_to(root).with_suffix("").parts for path in sorted(root.rglob("*.py"))}
    names = {path: ".".join(part for part in parts if part != "__init__") for path, parts in paths.items()}
    return {name: path.read_text() for path, name in names.items() if name}


def test_imports_go_down_the_ladder() -> None:
    found = violations(package_sources())
    assert not found, "\n".join(found)


def test_the_root_package_imports_the_standard_library_alone() -> None:
    """Every module imports the root first, so what it imports would stand below the lowest rung."""
    imported = {name.partition(".")[0] for _, name in imported_modules((ROOT / PACKAGE / "__init__.py").read_text())}
    assert imported <= sys.stdlib_module_names


def test_every_rung_is_read() -> None:
    """A ladder that names what does not exist, or a walk that finds nothing, would prove nothing."""
    units = {name.partition(".")[0] for name in package_sources()}
    assert {"errors", "settings", "losses", "algorithms", "engine"} <= units


@pytest.mark.parametrize(
    ("importer", "source", "expected"),
    [
        ("data.pipeline", "from metassl_tf.learner import state", "goes up or sideways"),
        ("data.pipeline", "from metassl_tf import learner", "goes up or sideways"),
        ("data.pipeline", "import metassl_tf.engine.loop", "goes up or sideways"),
        ("models.mlp", "from metassl_tf.losses import cross_entropy", "goes up or sideways"),
        ("losses", "def late():\n    from metassl_tf.algorithms import base", "line 2: .* goes up or sideways"),
        ("errors", "from metassl_tf import settings", "goes up or sideways"),
        ("algorithms.uda", "from . import base", "is relative"),
        ("algorithms.uda", "from metassl_tf.wisdom import truth", "is not on the ladder"),
        ("wisdom.truth", "import math", "wisdom is not on the ladder"),
        ("engine.loop", "from absl import flags", "is allowed only in"),
        ("learner.learner", "import tf_keras", "is allowed only in no module"),
        ("augment.rand_augment", "from official.vision.ops import augment", "is allowed only in engine"),
        ("engineer", "import orbit", "engineer is not on the ladder"),
        ("meta.weights", "from tools import benchmark", "is allowed only in no module"),
    ],
)
def test_a_wrong_import_is_found(importer: str, source: str, expected: str) -> None:
    found = violations({importer: source})
    assert len(found) == 1
    assert re.search(expected, found[0])


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("train", "from absl import app\nfrom metassl_tf import engine, flag_definitions"),
        ("flag_definitions", "from absl import flags\nfrom metassl_tf import config"),
        ("engine.setup", "from official.common import distribute_utils"),
        ("engine.results", "import metassl_tf.errors\nfrom metassl_tf import __version__"),
        ("algorithms.uda", "from metassl_tf.algorithms import base\nfrom metassl_tf.losses import cross_entropy"),
    ],
)
def test_a_right_import_is_not(importer: str, source: str) -> None:
    assert violations({importer: source}) == []
