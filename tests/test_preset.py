import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.preset import (
    PRESETS,
    check_form,
    check_settings,
    jobs_of,
    load_preset,
    run_name,
    split_run_name,
)
from harness.spec import MODES, RECIPE_FOLDER, RECIPES, load_recipe

FORM = {"name": "mine", "source": "standin", "kernels": ["naive"]}
RUN = {"dataset": "mnist", "recipe": "theano", "modes": ["float"], "seeds": [0], "threads": 1}
SHARED = {"groups": ["gate"], "seeds": [0], "threads": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../x"}, "name: '../x' names a folder"),
        ({"source": "web"}, "'web' is not one of standin, official"),
        ({"runs": "x"}, "runs: expected a list, found 'x'"),
        ({"runs": []}, "expected runs or ablations"),
        ({"runs": ["x"]}, "runs: expected a mapping, found 'x'"),
        ({"runs": [{**RUN, "recipe": "../../x"}]}, "recipe '../../x' is not one of theano"),
        ({"runs": [{**RUN, "dataset": "/tmp"}]}, "'/tmp' is not one of mnist"),
        ({"runs": [{**RUN, "seeds": [-1]}]}, "seeds are at least 0"),
        ({"runs": [{**RUN, "seeds": ["a"]}]}, "seeds: expected int, found 'a'"),
        ({"runs": [{**RUN, "seeds": []}]}, "runs: expected at least one seed, found none"),
        ({"runs": [{**RUN, "modes": []}]}, "runs: expected at least one mode, found none"),
        ({"rums": []}, "unknown key 'rums'"),
        ({1: 2, "zz": 3}, "unknown key 1"),
        ({"ablations": {}}, "mine.ablations: key 'groups' is missing"),
        ({"ablations": {"groups": ["gate"], "seeds": [0]}}, "key 'threads' is missing"),
        ({"ablations": {**SHARED, "groups": []}}, "ablations: expected at least one group"),
        ({"ablations": {**SHARED, "seeds": []}}, "ablations: expected at least one seed"),
        ({"ablations": {**SHARED, "mnist": 3}}, "ablations.mnist: expected dict, found 3"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_preset_of_another_form_is_refused(change: dict[str, Any], message: str) -> None:
    check_form({**FORM, "runs": [RUN], "ablations": SHARED}, "mine")
    check_form({**FORM, "ablations": SHARED}, "mine")
    with pytest.raises(HarnessError, match=re.escape(message)):
        check_form({**FORM, "runs": [RUN], **change}, "mine")


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", "a: b: c", "!!python/object/apply:os.system [id]"]
)
def test_a_file_that_is_no_preset_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml(: expected a mapping| is no YAML)") as caught:
        load_preset(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


def preset(**changes: Any) -> dict[str, Any]:
    entry = {"dataset": "mnist", "recipe": "theano", "modes": ["bnn-det"], "seeds": [0]}
    return {"name": "mine", "runs": [{**entry, "threads": 1, **changes}]}


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_resolves(name: str) -> None:
    jobs = jobs_of(load_preset(name))
    check_settings(jobs.values())
    assert jobs


def test_a_label_reaches_folder_and_command() -> None:
    (job,) = jobs_of(preset(label="no-clip")).values()
    assert job.folder == "mnist/theano+no-clip-bnn-det/seed0"
    assert "--label no-clip" in job.arguments
    (plain,) = jobs_of(preset()).values()
    assert plain.folder == "mnist/theano-bnn-det/seed0"
    assert "--label" not in plain.arguments


@pytest.mark.parametrize("label", ["No-Clip", "a b", "-x", "x-", "a--b", "../up", "a+b"])
def test_a_label_that_fits_no_folder_is_refused(label: str) -> None:
    with pytest.raises(HarnessError, match="label"):
        jobs_of(preset(label=label))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("label", ["", "no-clip", "lr-2-6"])
@pytest.mark.parametrize("mode", MODES)
def test_folder_names_are_read_back(recipe: str, label: str, mode: str) -> None:
    assert split_run_name(run_name(recipe, label, mode)) == (recipe, label, mode)


def test_two_entries_of_one_run_are_refused() -> None:
    twice = preset()
    twice["runs"] *= 2
    with pytest.raises(ValueError, match="mnist/theano-bnn-det/seed0 twice"):
        jobs_of(twice)


def test_the_paper_preset_is_complete() -> None:
    found = {(job.dataset, job.recipe, job.mode) for job in jobs_of(load_preset("paper")).values()}
    wanted = set()
    for path in RECIPE_FOLDER.glob("*.yaml"):
        recipe, dataset = path.stem.rsplit("-", 1)
        own = {"binaryconnect": ("float", "bc-det", "bc-stoch")}  # what its authors trained
        rule = load_recipe(recipe, dataset).method.kind
        modes = MODES if rule == "backprop" else ("float", "bnn-det")
        wanted |= {(dataset, recipe, mode) for mode in own.get(recipe, modes)}
    assert found == wanted
    settings = [job.settings for job in jobs_of(load_preset("paper")).values()]
    assert not any(settings), "the paper's recipes are run as they stand"


@pytest.mark.parametrize("name", ["quick", "cpu"])
def test_small_presets_have_every_mode_and_method_on_mnist(name: str) -> None:
    jobs = [job for job in jobs_of(load_preset(name)).values() if job.dataset == "mnist"]
    assert {job.mode for job in jobs} == set(MODES)
    methods = {job.resolved_recipe().method.kind for job in jobs}
    assert methods == {"backprop", "ebp", "bitwise", "ternary"}
    assert "binaryconnect" in {job.recipe for job in jobs}
