"""Variants are what they are called, and change what they say and nothing else."""

from pathlib import Path

import pytest

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.flagfile import to_flagfile
from metassl_tf.meta.per_example_weights import PerExampleWeights
from tools.ablation_data import Case, cases
from tools.ablation_groups import BASES, GROUPS
from tools.variants import Group, Variant, changed

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flagfiles that are varied are found from there."""
    monkeypatch.chdir(ROOT)


def parsed(case: Case) -> Config:
    return flag_definitions.parse(case.flags.splitlines())


@pytest.mark.parametrize(("base", "group"), [(base, group) for base in BASES for group in BASES[base].groups])
def test_every_variant_is_a_run_with_its_changes(base: str, group: str) -> None:
    found = cases(BASES[base], GROUPS[group])
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    plain = BASES[base].config().values()
    for case in found:
        assert case.reference in names
        values = parsed(case).values()
        for name, value in case.changes.items():
            assert list(values[name]) == list(value) if name == "meta" else values[name] == value, (case.name, name)
        others = {name for name in values.keys() & plain.keys() if values[name] != plain[name]}
        # What has no effect any more is back at its default.
        assert others <= {*case.changes, "solver_iterations", "damping"}, case.name


def test_variants_of_a_group_differ() -> None:
    """All but the two of a cross that are the base itself."""
    for base in BASES.values():
        for name in base.groups:
            found = cases(base, GROUPS[name])
            assert len(found) - len({case.digest for case in found}) == (1 if name == "updates" else 0), name


def test_unlabeled_examples_are_those_of_any_number_of_validation_examples() -> None:
    for base in (BASES["flipped"], BASES["fixmatch"]):
        configs = map(parsed, cases(base, GROUPS["validation_size"]))
        assert {config.data.num_validation + config.data.num_meta_validation for config in configs} == {200}


def test_settings_are_replaced_wherever_they_are() -> None:
    config = BASES["flipped"].config()
    new = changed(config, {"num_labeled": 20, "learning_rate": 0.5, "damping": 2.0, "flip_labels": 0.1})
    different = {name for name, value in new.values().items() if value != config.values()[name]}
    assert different == {"num_labeled", "learning_rate", "damping", "flip_labels"}
    without = changed(config, {"meta": ()})
    assert without.meta_rule(PerExampleWeights) is None
    assert "weight" not in to_flagfile(without).replace("unlabeled_weight", "").replace("weight_decay", "")
    with pytest.raises(ValueError, match=r"no settings.*dampening"):
        changed(config, {"dampening": 1.0})
    with pytest.raises(ValueError, match=r"no settings.*damping"):
        changed(without, {"damping": 1.0})


def test_the_base_is_the_reference_under_the_name_it_has() -> None:
    group = Group("Title", "Table 0", {"low": Variant({"damping": 0.01}), "same": Variant({"damping": 0.1})})
    assert [(case.name, case.reference) for case in cases(BASES["flipped"], group)] == [
        ("low", "same"),
        ("same", "same"),
    ]
    group = group._replace(variants={"low": Variant({"damping": 0.01})})
    assert [(case.name, case.reference) for case in cases(BASES["flipped"], group)] == [
        ("base", "base"),
        ("low", "base"),
    ]
