from typing import Any

import pytest

from harness.ablations import Factor, Group, Level, choose, entries, load_groups
from harness.errors import HarnessError
from harness.preset import jobs_of, load_preset
from harness.spec import as_mapping, load_recipe

BASE: dict[str, Any] = {
    "name": "g", "title": "t", "question": "q", "where": "w", "dataset": "mnist",
    "recipe": "theano", "mode": "bnn-det",
}  # fmt: skip


def differing(one: Any, other: Any) -> set[str]:
    """Return the dotted keys in which two resolved recipes differ."""
    found = set()
    for key in one:
        if isinstance(one[key], dict):
            found |= {f"{key}.{below}" for below in differing(one[key], other[key])}
        elif one[key] != other[key]:
            found.add(key)
    return found


@pytest.mark.parametrize("name", load_groups())
def test_each_level_changes_exactly_what_it_says(name: str) -> None:
    group = load_groups()[name]
    plain = as_mapping(load_recipe(group.recipe, group.dataset))
    baseline, *others = group.cells()
    assert (baseline.label, baseline.mode, baseline.settings) == ("", group.mode, ())
    for cell in others:
        changed = as_mapping(load_recipe(group.recipe, group.dataset, dict(cell.settings)))
        assert differing(plain, changed) == {key for key, _ in cell.settings}
        assert cell.settings or cell.mode != group.mode


@pytest.mark.parametrize("name", load_groups())
def test_labels_and_modes_tell_the_cells_apart(name: str) -> None:
    cells = load_groups()[name].cells()
    assert len({(cell.label, cell.mode) for cell in cells}) == len(cells)


def test_the_factorial_crosses_everything() -> None:
    cells = load_groups()["factorial"].cells()
    assert len(cells) == 2 * 2 * 2 * 2
    assert {cell.mode for cell in cells} == {"bnn-det", "bnn-stoch", "bnn-w-stoch", "bnn-stoch-w"}
    last = cells[-1]
    assert (last.label, last.mode) == ("sbn-adamax", "bnn-stoch-w")
    recipe = load_recipe("theano", "mnist", dict(last.settings))
    assert (recipe.network.norm.kind, recipe.optimizer.kind) == ("shift", "shift-adamax")


def test_the_conflicts_together_are_the_released_recipe() -> None:
    (cell,) = [c for c in load_groups()["text-or-code"].cells() if c.label == "as-released"]
    ours = as_mapping(load_recipe("torch7", "mnist", dict(cell.settings)))
    released = as_mapping(load_recipe("torch7-released", "mnist"))
    assert differing(ours, released) == {"name", "variant"}


def test_a_factor_starts_with_the_recipes_own_level() -> None:
    for levels in ((Level("a"),), (Level("a", label="x"), Level("b"))):
        with pytest.raises(HarnessError, match="the first without changes"):
            Group(**BASE, factors=(Factor("f", levels),))


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(HarnessError, match="unknown ablation 'cliping'; allowed: factorial"):
        choose(["cliping"])
    with pytest.raises(HarnessError, match="has no ablation 'gate'; it has clipping"):
        entries({"groups": ["clipping"], "seeds": [0], "threads": 1}, ["gate"])


@pytest.mark.parametrize("name", ["ablations", "ablations-standin"])
def test_the_presets_run_every_group_and_share_baselines(name: str) -> None:
    preset = load_preset(name)
    assert preset["ablations"]["groups"] == list(load_groups())
    jobs = jobs_of(preset)
    cells = sum(len(group.cells()) for group in load_groups().values())
    # Five groups share theano / bnn-det on MNIST, the factorial holds it too; two share CIFAR-10's,
    # two torch7 / bnn-stoch on MNIST.
    assert len(jobs) == (cells - 5 - 1 - 1) * len(preset["ablations"]["seeds"])
    alone = jobs_of(preset, ["clipping"])
    assert {job.label for job in alone.values()} == {"", "no-clip"}
    assert set(alone) < set(jobs)


def test_a_preset_without_ablations_takes_no_groups() -> None:
    with pytest.raises(HarnessError, match="'quick' has no ablations"):
        jobs_of(load_preset("quick"), ["clipping"])


def test_a_label_for_two_settings_is_refused() -> None:
    preset = load_preset("ablations")
    preset["runs"] = [
        {"dataset": "mnist", "recipe": "theano", "modes": ["bnn-det"], "seeds": [0], "threads": 1}
    ]
    with pytest.raises(ValueError, match="mnist/theano-bnn-det/seed0 twice"):
        jobs_of(preset)
