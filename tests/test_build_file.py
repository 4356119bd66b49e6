"""BUILD says what is in the tree: every source in one target, every test its own, dependencies as imported."""

import ast
import importlib.metadata
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCE_FOLDERS = ("metassl_tf", "tools", "tests")
RULES = "@rules_python//python:defs.bzl"
REQUIREMENTS = "@pip//:requirements.bzl"
# Imported where they are present, never installed with the project.
OPTIONAL = {"torch"}
# Python that is not Starlark, or that Bazel allows in .bzl files only.
FORBIDDEN = (
    *(ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Lambda, ast.JoinedStr, ast.Starred),
    *(ast.For, ast.While, ast.If, ast.Try, ast.With, ast.GeneratorExp, ast.NamedExpr, ast.Set),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One rule; `deps` are `:name` labels of this file and `@pip//name` labels of requirements."""

    rule: str
    name: str
    srcs: Sequence[str] = ()
    deps: Sequence[str] = ()
    main_module: str = ""


def evaluate(root: Path) -> list[Target]:
    """Evaluates root/BUILD. What Starlark allows in a BUILD file means the same in Python."""
    text = (root / "BUILD").read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FORBIDDEN) or (isinstance(node, ast.keyword) and node.arg is None):
            raise SyntaxError(f"{type(node).__name__} is not allowed in a BUILD file")
    targets: list[Target] = []

    def rule(kind: str) -> Callable[..., None]:
        def record(**attributes: Any) -> None:
            known = {key: value for key, value in attributes.items() if key in Target.__dataclass_fields__}
            targets.append(Target(rule=kind, **known))

        return record

    loadable = {
        RULES: {kind: rule(kind) for kind in ("py_library", "py_binary", "py_test")},
        REQUIREMENTS: {"requirement": lambda name: f"@pip//{name}"},
    }
    names: dict[str, Any] = {
        "__builtins__": {},
        "glob": lambda include, exclude=(): glob(root, include, exclude),
        "load": lambda label, *symbols: names.update({symbol: loadable[label][symbol] for symbol in symbols}),
        "package": lambda **_: None,
    }
    exec(compile(text, "BUILD", "exec"), names)
    return targets


def glob(root: Path, include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """Bazel's glob: files only, and none found is an error."""

    def matches(patterns: Sequence[str]) -> set[str]:
        # A trailing ** means files to Bazel, folders to pathlib.
        paths = (path for pattern in patterns for path in root.glob(re.sub(r"\*\*$", "**/*", pattern)))
        return {path.relative_to(root).as_posix() for path in paths if path.is_file()}

    found = sorted(matches(include) - matches(exclude))
    if not found:
        raise FileNotFoundError(f"glob({include}) finds no file")
    return found


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted name of every import of a file, `from a import b` as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def source_of(root: Path, imported: str) -> str | None:
    """Returns the file of this project that an import reads, or None for anything else."""
    parts = imported.split(".")
    for length in range(len(parts), 0, -1):
        stem = "/".join(parts[:length])
        for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
            if (root / candidate).is_file():
                return candidate
    return None


def requirements(root: Path) -> set[str]:
    """Returns the distributions that requirements.txt and requirements-dev.txt name."""
    lines = "\n".join((root / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    return set(re.findall(r"^([\w-]+)==", lines, flags=re.MULTILINE))


def label_of(imported: str, *, root: Path, owners: dict[str, str], required: set[str]) -> str | None:
    """Returns the label that provides an import: a target, a requirement, or None for the standard library."""
    source = source_of(root, imported)
    if source:
        return f":{owners.get(source, source)}"
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names or top in OPTIONAL:
        return None
    providers = set(DISTRIBUTIONS.get(top, [])) & required
    return f"@pip//{min(providers)}" if providers else f"@pip//{top} (in no requirements file)"


DISTRIBUTIONS = {
    module: [name.lower().replace("_", "-") for name in names]
    for module, names in importlib.metadata.packages_distributions().items()
}


def problems(root: Path) -> list[str]:
    """Compares root/BUILD with the tree.

    Returns:
        One sentence for each thing that is wrong, none where all is well.
    """
    targets = evaluate(root)
    labels = [f":{target.name}" for target in targets]
    found = [f"{label} is defined {count} times" for label, count in Counter(labels).items() if count > 1]
    found += source_problems(root, targets)
    required = requirements(root)
    owners = {source: target.name for target in targets for source in target.srcs}
    for target in targets:
        unknown = set(target.deps) - set(labels) - {f"@pip//{name}" for name in required}
        found += [f":{target.name} depends on {label}, which does not exist" for label in sorted(unknown)]
        used = {
            label_of(imported, root=root, owners=owners, required=required)
            for source in target.srcs
            for imported in imports(root / source)
        } - {None, f":{target.name}"}
        found += [f":{target.name} imports {label} without listing it" for label in sorted(used - set(target.deps))]
        # Tests share one list: what they start in other processes is not imported.
        superfluous = sorted(set(target.deps) - used) if target.rule != "py_test" else []
        found += [f":{target.name} lists {label} without importing it" for label in superfluous]
        if target.main_module.startswith(SOURCE_FOLDERS) and source_of(root, target.main_module) not in target.srcs:
            found.append(f":{target.name} runs {target.main_module}, which is not among its srcs")
    return found


def source_problems(root: Path, targets: list[Target]) -> list[str]:
    """Checks that every source is in exactly one target, and every test in a test target of its own."""
    counts = Counter(source for target in targets for source in target.srcs)
    found = [
        f"{source} is in {counts[source]} targets instead of one"
        for source in glob(root, [f"{folder}/**/*.py" for folder in SOURCE_FOLDERS])
        if counts[source] != 1
    ]
    found += [f"{source} does not exist" for source in sorted(counts) if not (root / source).is_file()]
    own = {target.srcs[0] for target in targets if target.rule == "py_test" and len(target.srcs) == 1}
    tests = set(glob(root, ["tests/**/test_*.py"]))
    return found + [f"{source} has no py_test of its own" for source in sorted(tests - own)]


def test_build_file_agrees_with_the_tree() -> None:
    found = problems(ROOT)
    assert not found, "\n".join(found)


def test_every_program_is_a_binary() -> None:
    programs = {
        source
        for source in glob(ROOT, ["metassl_tf/*.py", "tools/**/*.py"])
        if 'if __name__ == "__main__":' in (ROOT / source).read_text()
    }
    binaries = {source for target in evaluate(ROOT) if target.rule == "py_binary" for source in target.srcs}
    assert programs == binaries


SMALL_BUILD = """
load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")
py_library(name = "low", srcs = glob(["metassl_tf/low/*.py"]), deps = [requirement("numpy")])
py_library(name = "high", srcs = ["metassl_tf/high.py"], deps = [":low"])
py_binary(name = "tool", srcs = ["tools/tool.py"], main_module = "tools.tool", deps = [":high"])
[py_test(name = f[:-3].replace("/", "_"), srcs = [f], main_module = "pytest", args = [f], deps = [":high"])
 for f in glob(["tests/**/test_*.py"])]
"""


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A project of five files whose BUILD is right."""
    for name, text in {
        "BUILD": SMALL_BUILD,
        "requirements.txt": "numpy==2.0  # arrays\n",
        "requirements-dev.txt": "pytest==9.0\n",
        "metassl_tf/low/__init__.py": "import numpy as np\nimport torch\n",
        "metassl_tf/low/deep.py": "import json\nfrom metassl_tf.low import np\n",
        "metassl_tf/high.py": "def late():\n    from metassl_tf import low\n",
        "tools/tool.py": "import metassl_tf.high\n",
        "tests/low/test_low.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_right_build_file_has_no_problems(small_tree: Path) -> None:
    assert problems(small_tree) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("metassl_tf/new.py", "", "metassl_tf/new.py is in 0 targets instead of one"),
        ("metassl_tf/high.py", "import math", ":high lists :low without importing it"),
        ("metassl_tf/low/__init__.py", "", ":low lists @pip//numpy without importing it"),
        ("tools/tool.py", "import metassl_tf.high\nfrom metassl_tf.low import deep", ":tool imports :low without"),
        ("tools/tool.py", "import metassl_tf.high\nimport pytest", ":tool imports @pip//pytest without"),
        ("tools/tool.py", "import metassl_tf.high\nimport pluggy", r"imports @pip//pluggy \(in no requirements file\)"),
        ("tests/test_more.py", "from metassl_tf import low", ":tests_test_more imports :low without listing it"),
        ("tests/helper.py", "", "tests/helper.py is in 0 targets instead of one"),
        ("BUILD", SMALL_BUILD.replace('[":low"]', '[":low", ":lower"]'), ":high depends on :lower, which does not"),
        ("BUILD", SMALL_BUILD.replace('"numpy"', '"scipy"'), ":low depends on @pip//scipy, which does not exist"),
        ("BUILD", SMALL_BUILD.replace("metassl_tf/low/", "metassl_tf/**/"), "metassl_tf/high.py is in 2 targets"),
        ("BUILD", SMALL_BUILD.replace('name = "high"', 'name = "low"'), ":low is defined 2 times"),
        ("BUILD", SMALL_BUILD.replace('"tools.tool"', '"tools.other"'), ":tool runs tools.other, which is not among"),
        ("BUILD", SMALL_BUILD.replace("py_test(", "py_library("), "tests/low/test_low.py has no py_test of its own"),
    ],
)
def test_a_wrong_build_file_is_found(small_tree: Path, name: str, text: str, expected: str) -> None:
    (small_tree / name).write_text(text)
    assert re.search(expected, "\n".join(problems(small_tree)))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import os", SyntaxError),
        ('name = f"{1}"', SyntaxError),
        ('py_library(name = "unloaded")', NameError),
        ('glob(["nowhere/*.py"])', FileNotFoundError),
        ('load("@rules_python//python:defs.bzl", "py_wheel")', KeyError),
    ],
)
def test_what_bazel_would_refuse_is_refused(small_tree: Path, text: str, error: type[Exception]) -> None:
    (small_tree / "BUILD").write_text(text)
    with pytest.raises(error):
        evaluate(small_tree)
