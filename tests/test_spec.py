import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import HarnessError
from harness.spec import (
    DATASETS,
    MODES,
    RECIPE_FOLDER,
    RECIPES,
    Recipe,
    ScheduleSpec,
    as_mapping,
    from_mapping,
    get_mode,
    load_recipe,
    merge,
    nest,
)

# (recipe, dataset): preprocess, batch, epochs, rule, first rate, last rate or halving period, sizes
TABLE = {
    ("theano", "mnist"): ("scale", 100, 1000, "adam-lasagne", 3e-3, 3e-7, (4096, 4096, 4096)),
    ("theano", "cifar10"): ("scale", 50, 500, "adam-lasagne", 1e-3, 3e-7, (128, 1024)),
    ("theano", "svhn"): ("scale", 50, 200, "adam-lasagne", 1e-3, 1e-6, (64, 1024)),
    ("torch7", "mnist"): ("global", 100, 1000, "shift-adamax", 2**-10, 10, (2048, 2048, 2048)),
    ("torch7", "cifar10"): ("scale", 200, 500, "shift-adamax", 2**-10, 50, (128, 1024)),
    ("torch7", "svhn"): ("scale", 200, 200, "shift-adamax", 2**-10, 20, (64, 1024)),
    ("torch7-released", "mnist"): ("global", 100, 1000, "shift-adamax", 2**-6, 20, (2048,) * 3),
    ("torch7-released", "cifar10"): ("zca", 200, 500, "shift-adamax", 2**-6, 50, (128, 1024)),
    ("torch7-released", "svhn"): ("gcn-lcn", 200, 200, "shift-adamax", 2**-7, 20, (64, 1024)),
    ("binaryconnect", "mnist"): ("scale", 100, 250, "adam-lasagne", 1e-3, 3e-6, (1024,) * 3),
    ("binaryconnect", "cifar10"): ("gcn-zca", 50, 500, "adam-lasagne", 3e-3, 2e-6, (128, 1024)),
    ("binaryconnect", "svhn"): ("scale", 50, 200, "adam-lasagne", 1e-2, 3e-6, (64, 1024)),
    ("ebp", "mnist"): ("pixel-mean", 10, 100, "adam-lasagne", 1e-2, 1e-4, (300, 300)),
    ("bitwise", "mnist"): ("scale", 100, 200, "adam-lasagne", 5e-2, 5e-4, (1024,) * 3),
    ("ternary", "mnist"): ("scale", 100, 200, "adam-lasagne", 3e-2, 5e-4, (1022,) * 3),
}


@pytest.mark.parametrize(("name", "dataset"), TABLE)
def test_recipes_are_the_papers(name: str, dataset: str) -> None:
    recipe = load_recipe(name, dataset)
    network, schedule = recipe.network, recipe.schedule
    sizes = network.hidden or (network.width, network.fc)
    last = schedule.end if schedule.kind == "exponential" else schedule.every
    found = (recipe.preprocess, recipe.batch, recipe.epochs, recipe.optimizer.kind)
    assert (*found, schedule.start, last, sizes) == TABLE[name, dataset]
    assert (recipe.name, recipe.dataset) == (name, dataset)
    released = name == "torch7-released" or (name, dataset) == ("binaryconnect", "mnist")
    assert recipe.variant == ("released" if released else "paper")


def test_every_recipe_file_is_in_the_table() -> None:
    assert {recipe for recipe, _ in TABLE} == set(RECIPES)
    assert {dataset for _, dataset in TABLE} == set(DATASETS)
    files = {path.stem for path in RECIPE_FOLDER.glob("*.yaml")}
    assert files == {f"{name}-{dataset}" for name, dataset in TABLE}


@pytest.mark.parametrize("path", sorted(RECIPE_FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_recipe_files_say_command_hardware_time_and_expectation(path: Path) -> None:
    text = path.read_text()
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert f"# {word}" in text


def test_constants_of_the_two_code_bases() -> None:
    theano, torch7 = load_recipe("theano", "mnist"), load_recipe("torch7", "mnist")
    assert (theano.network.norm.kind, theano.network.norm.eps) == ("lasagne", 1e-4)
    assert theano.network.norm.momentum == 0.1
    assert (theano.network.input_dropout, theano.network.hidden_dropout) == (0.2, 0.5)
    assert (torch7.network.norm.kind, torch7.network.norm.momentum) == ("shift", 0.125)
    assert torch7.network.output_norm.kind == "torch"
    assert torch7.network.input_dropout == torch7.network.hidden_dropout == 0
    assert (torch7.optimizer.beta1, torch7.optimizer.beta2) == (1 - 2**-3, 1 - 2**-10)
    released = load_recipe("torch7-released", "mnist").optimizer
    assert (released.beta1, released.beta2, released.eps) == (0.9, 0.999, 2**-27)
    assert released.stored_ap2
    assert not torch7.optimizer.stored_ap2
    assert torch7.optimizer.lr_scale == theano.optimizer.lr_scale == "glorot"
    assert load_recipe("torch7", "cifar10").optimizer.lr_scale == "glorot-ap2"


@pytest.mark.parametrize(
    ("mode", "weights", "activations", "is_bnn", "test_weights"),
    [
        ("float", "real", "real", False, "real"),
        ("bc-det", "det", "real", False, "det"),
        ("bc-stoch", "stoch", "real", False, "real"),
        ("bnn-det", "det", "det", True, "det"),
        ("bnn-stoch", "det", "stoch", True, "det"),
        ("bnn-stoch-w", "stoch", "stoch", True, "det"),
        ("bnn-w-stoch", "stoch", "det", True, "det"),
    ],
)
def test_modes(mode: str, weights: str, activations: str, is_bnn: bool, test_weights: str) -> None:
    found = get_mode(mode)
    assert (found.weights, found.activations) == (weights, activations)
    assert (found.is_bnn, found.test_weights) == (is_bnn, test_weights)


def test_exponential_schedule_decays_by_one_factor_an_epoch() -> None:
    schedule = load_recipe("theano", "mnist").schedule
    rates = [schedule.rate(epoch, 1000) for epoch in range(1001)]
    assert rates[0] == 3e-3
    assert rates[1000] == pytest.approx(3e-7)
    ratios = {round(b / a, 12) for a, b in zip(rates[:-1], rates[1:], strict=True)}
    assert ratios == {round((3e-7 / 3e-3) ** (1 / 1000), 12)}


def test_halving_schedule_halves_every_n_epochs() -> None:
    schedule = ScheduleSpec("halving", 2**-10, every=10)
    rates = [schedule.rate(epoch, 1000) for epoch in (0, 9, 10, 19, 20, 99)]
    assert rates == [2**-10, 2**-10, 2**-11, 2**-11, 2**-12, 2**-19]


def test_overrides_reach_inside_and_leave_the_rest() -> None:
    changed = load_recipe("theano", "mnist", {"network.hidden": [256], "epochs": 5})
    base = load_recipe("theano", "mnist")
    assert (changed.network.hidden, changed.epochs) == ((256,), 5)
    assert changed.network.norm == base.network.norm
    assert changed.schedule == base.schedule
    assert load_recipe("theano", "mnist", {"schedule.start": 1}).schedule.start == 1.0


@pytest.mark.parametrize(("name", "dataset"), TABLE)
def test_a_recipe_survives_its_own_record(name: str, dataset: str) -> None:
    recipe = load_recipe(name, dataset)
    stored = yaml.safe_load(yaml.safe_dump(as_mapping(recipe)))
    assert from_mapping(Recipe, stored, "run.json") == recipe


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epoch": 5}, ["unknown key 'epoch'", "allowed:", "epochs"]),
        ({"network.hiden": [5]}, ["network", "unknown key 'hiden'", "hidden"]),
        ({"network.norm.kind": "group"}, ["norm.kind", "'group'", "lasagne, torch, shift"]),
        ({"optimizer.kind": "sgd"}, ["optimizer.kind", "'sgd'", "adam-lasagne", "shift-adamax"]),
        ({"preprocess": "none"}, ["preprocess", "'none'", "scale, global, zca, gcn-lcn"]),
        ({"name": "../x"}, ["'name' is chosen by the recipe's file"]),
        ({"dataset": "svhn"}, ["'dataset' is chosen by the recipe's file"]),
        ({"epochs": "5"}, ["epochs", "expected int", "'5'"]),
        ({"epochs": True}, ["epochs", "expected int", "True"]),
        ({"epochs": 2.5}, ["epochs", "expected int", "2.5"]),
        ({"epochs": 0}, ["epochs", "at least 1", "0"]),
        ({"batch": -1}, ["batch", "at least 1", "-1"]),
        ({"network.hidden": 64}, ["network.hidden", "expected a list", "64"]),
        ({"network.hidden": ["a"]}, ["network.hidden", "expected int", "'a'"]),
        ({"network.hidden": []}, ["'mlp'", "needs 'hidden'"]),
        ({"network.hidden": [64, 0]}, ["network.hidden", "at least 1", "0"]),
        ({"network.hidden": [-3]}, ["network.hidden", "at least 1", "-3"]),
        ({"network.width": 8}, ["'mlp'", "does not take 'width'"]),
        ({"network.input_dropout": 1.0}, ["input_dropout", "[0, 1)", "1.0"]),
        ({"network.hidden_dropout": -0.1}, ["hidden_dropout", "[0, 1)", "-0.1"]),
        ({"network": 3}, ["network", "expected a mapping", "3"]),
        ({"network.norm.eps": 0.0}, ["eps", "above 0", "0.0"]),
        ({"network.norm.eps": math.inf}, ["norm.eps", "finite", "inf"]),
        ({"network.norm.eps": 1e39}, ["norm.eps", "finite float32", "1e+39"]),
        ({"network.norm.momentum": 1.5}, ["momentum", "(0, 1]", "1.5"]),
        ({"schedule.end": 0.0}, ["schedule.end", "(0, 0.003]", "0.0"]),
        ({"schedule.start": -1.0}, ["schedule.start", "above 0", "-1.0"]),
        ({"schedule.start": float("nan")}, ["schedule.start", "above 0", "nan"]),
        ({"schedule.kind": "halving", "schedule.every": 0}, ["schedule.every", "at least 1", "0"]),
        ({"optimizer.beta1": 1.0}, ["beta1", "[0, 1)", "1.0"]),
        ({"optimizer.eps": -1.0}, ["optimizer.eps", "above 0", "-1.0"]),
        ({"optimizer.eps": 1e-50}, ["optimizer.eps", "1.2e-38 to", "1e-50"]),
        ({"optimizer.eps": math.inf}, ["optimizer.eps", "finite", "inf"]),
    ],
    ids=lambda value: (
        ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_bad_settings_name_the_value_and_the_allowed_ones(
    overrides: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(HarnessError) as caught:
        load_recipe("theano", "mnist", overrides)
    for word in words:
        assert word in str(caught.value)


def test_convnet_takes_no_dropout_and_no_hidden_widths() -> None:
    with pytest.raises(HarnessError, match="no dropout"):
        load_recipe("theano", "cifar10", {"network.hidden_dropout": 0.5})
    with pytest.raises(HarnessError, match="'convnet' does not take 'hidden'"):
        load_recipe("theano", "cifar10", {"network.hidden": [3]})
    with pytest.raises(HarnessError, match=r"width.* at least 1.* -4"):
        load_recipe("theano", "cifar10", {"network.width": -4})


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(HarnessError, match="'keras'.*theano, torch7, torch7-released.*mnist"):
        load_recipe("keras", "mnist")
    with pytest.raises(HarnessError, match="'imagenet'.*mnist, cifar10, svhn"):
        load_recipe("theano", "imagenet")
    with pytest.raises(HarnessError, match=f"'ternary'; allowed: {', '.join(MODES)}"):
        get_mode("ternary")


def test_a_missing_key_is_named() -> None:
    stored = as_mapping(load_recipe("theano", "mnist"))
    del stored["schedule"]["start"]
    with pytest.raises(HarnessError, match=r"run.schedule: key 'start' is missing"):
        from_mapping(Recipe, stored, "run")


def test_dotted_settings_nest_and_merge() -> None:
    nested = nest({"a.b.c": 1, "a.b.d": 2, "e": 3})
    assert nested == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    base = {"a": {"b": {"c": 0, "x": 9}}, "y": [1]}
    assert merge(base, nested) == {"a": {"b": {"c": 1, "d": 2, "x": 9}}, "y": [1], "e": 3}
    assert base == {"a": {"b": {"c": 0, "x": 9}}, "y": [1]}, "the arguments stay as they are"


@pytest.mark.parametrize(
    ("recipe", "dataset", "settings", "message"),
    [
        ("theano", "mnist", {"network.norm.running": "variance"}, "norm.kind 'shift', found"),
        ("torch7", "mnist", {"network.norm.running": "median"}, "inverse-std, variance, vanilla"),
        ("theano", "mnist", {"network.pool": "after-sign"}, "the MLP has no pooling"),
        ("theano", "cifar10", {"network.pool": "never"}, "before-norm, after-sign"),
        ("theano", "mnist", {"network.ste": "none"}, "gated, identity"),
        ("theano", "mnist", {"optimizer.clip": 1}, "expected bool"),
    ],
)
def test_switches_refuse_what_they_do_not_know(
    recipe: str, dataset: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message):
        load_recipe(recipe, dataset, settings)


@pytest.mark.parametrize("path", sorted(RECIPE_FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_has_the_papers_side_of_each_switch(path: Path) -> None:
    recipe = load_recipe(*path.stem.rsplit("-", 1))
    network = recipe.network
    assert (network.ste, network.pool, recipe.optimizer.clip) == ("gated", "before-norm", True)
    assert (network.first_layer, network.last_layer) == ("mode", "mode")
    assert network.norm.running == "inverse-std"
