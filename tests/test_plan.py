"""Hours and disk of a preset from measured throughputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.data.splits import split
from harness.data.standin.write import COUNTS
from harness.errors import HarnessError
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.plan import calibrate, cost, show
from harness.plan.calibrate import Calibration, Throughput, image_macs, measure_throughput
from harness.plan.cost import IMAGES, JOB_SECONDS, cost_of
from harness.preset import Job, jobs_of, load_preset
from harness.spec import get_mode, load_recipe
from harness.text import hours_text

CPU = torch.device("cpu")
SMALL = (("network.hidden", [16, 16]), ("epochs", 3))


def job(**changes: Any) -> Job:
    values = {"dataset": "mnist", "recipe": "theano", "mode": "bnn-det", "seed": 0, "threads": 1}
    return Job(**{**values, "settings": SMALL, **changes})


def test_hours_are_epochs_times_images_over_throughput() -> None:
    throughput = Throughput(images_per_s=1000.0, batch=100, macs=1, step_s=0.1)
    found = cost_of(job(), job().resolved_recipe(), "official", throughput)
    by_hand = 3 * (50_000 + (10_000 + 10_000) / 3) / 1000 + JOB_SECONDS
    assert found.hours == pytest.approx(by_hand / 3600)


@pytest.mark.parametrize(("recipe", "dataset"), [("theano", "mnist"), ("torch7", "svhn")])
def test_kept_bytes_are_those_of_the_network(recipe: str, dataset: str) -> None:
    one = job(recipe=recipe, dataset=dataset, settings=(("epochs", 1),))
    resolved = one.resolved_recipe()
    found = cost_of(one, resolved, "official", Throughput(1.0, 1, 1, 1.0))
    shape = (1, 28, 28) if dataset == "mnist" else (3, 32, 32)
    network = build_network(resolved.network, get_mode("bnn-det"), Streams(0), shape, None)
    weights = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    packed = sum(layer.weight.numel() for layer in network.binary_layers()) / 8
    assert found.kept_bytes == pytest.approx(weights + packed, rel=0.02)
    assert found.working_bytes == pytest.approx(4 * weights, rel=0.01)


@pytest.mark.parametrize("dataset", COUNTS)
def test_image_counts_are_the_splits(dataset: str) -> None:
    counts = COUNTS[dataset]
    labels = [torch.arange(counts[part]).numpy() % 10 for part in counts if part != "test"]
    found = split(dataset, "standin", *labels)
    assert IMAGES[dataset, "standin"] == (len(found.train), len(found.valid), counts["test"])


def test_a_large_network_is_measured_on_a_part_of_a_batch(monkeypatch: Any) -> None:
    sizes: list[int] = []
    make = calibrate._steps

    def watched(recipe: Any, mode: str, batch: int, device: Any) -> Any:
        sizes.append(batch)
        return make(recipe, mode, batch, device)

    monkeypatch.setattr(calibrate, "_steps", watched)
    monkeypatch.setattr(calibrate, "SECONDS", 0.0)
    one = job()
    recipe = one.resolved_recipe()
    found = measure_throughput(one, recipe, CPU)
    assert sizes == [100]
    assert found.macs == image_macs(recipe, "bnn-det") == 784 * 16 + 16 * 16 + 16 * 10
    assert found.images_per_s == pytest.approx(100 / found.step_s)
    monkeypatch.setattr(calibrate, "STEP_MACS", 7 * found.macs)
    assert measure_throughput(one, recipe, CPU).batch == 7
    big = load_recipe("theano", "cifar10")
    assert image_macs(big, "bnn-det") == pytest.approx(616e6, rel=0.01)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    path, calls = tmp_path / "plan" / "box.json", []

    def measure() -> Throughput:
        calls.append(1)
        return Throughput(5.0, 1, 2, 0.2)

    assert Calibration(path).get("a", measure) == Calibration(path).get("a", measure)
    assert len(calls) == 1
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "torch": "1.0"}))
    Calibration(path).get("a", measure)
    assert len(calls) == 2, "another version of torch trains at another speed"


def test_the_paper_is_planned_from_few_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def fake(job: Job, recipe: Any, device: Any) -> Throughput:
        measured.append(calibrate.describe(recipe))
        return Throughput(100.0, 10, 1, 0.1)

    monkeypatch.setattr(show, "measure_throughput", fake)
    console = Console(record=True, width=110)
    planned = show.make_plan("paper", [], CPU, tmp_path / "a.json", console)
    assert {row.job.folder for row in planned} == set(jobs_of(load_preset("paper")))
    assert len(measured) < len(planned) / 3
    assert f"measuring 1 of {len(measured)}: mnist" in console.export_text()
    text = " ".join(show.summary(planned, "cpu"))
    assert f"{len(planned)} training runs" in text
    again = show.make_plan("paper", [], CPU, tmp_path / "a.json", console)
    assert [row.cost for row in again] == [row.cost for row in planned]
    assert sum(row.cost.hours for row in planned) == pytest.approx(
        sum(cost.cost_of(r.job, r.recipe, "official", r.throughput).hours for r in planned)
    )


def test_bad_presets_and_groups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="unknown preset 'papr'; presets: ablations"):
        show.make_plan("papr", [], CPU, tmp_path / "a.json", Console())
    with pytest.raises(HarnessError, match="no ablations"):
        show.make_plan("quick", ["gate"], CPU, tmp_path / "a.json", Console())


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "4 s"), (0.5, "30.0 min"), (3.14, "3.1 h"), (100, "4 days")],
)
def test_durations_read_well(hours: float, text: str) -> None:
    assert hours_text(hours) == text


def test_fast_steps_are_measured_apart_and_by_mode() -> None:
    keys = {
        calibrate.key_of(one, one.resolved_recipe(), "cpu")
        for precision in ("exact", "fast")
        for mode in ("bnn-det", "bc-det")
        for one in [job(mode=mode, settings=(*SMALL, ("precision", precision)))]
    }
    assert len(keys) == 3, "exact modes share one"


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": 2, "torch": "2", "rows": {"a": 1}}'])
def test_a_cache_of_another_kind_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cache.json"
    path.write_text(text)
    with pytest.raises(HarnessError, match="holds no throughputs; name another --cache"):
        Calibration(path)
    assert path.read_text() == text
