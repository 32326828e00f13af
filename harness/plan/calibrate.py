"""Training throughput of a network on this machine: a few steps, kept in a file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.data.names import CLASSES, IMAGE_SHAPES
from harness.errors import HarnessError
from harness.files import read_json, write_json
from harness.methods import build_method
from harness.nn.costs import layer_costs, total_macs
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.preset import Job
from harness.spec import Recipe, get_mode
from harness.train.inputs import Resident
from harness.train.steps import GRAPH_STEPS, Steps, steps_of

# A step with more multiply-accumulates is measured on fewer images and scaled: 16 of ConvNet(128).
STEP_MACS = 10**10
STEPS, SECONDS, LONG_SECONDS = 3, 1.0, 3.0  # so many for so long, fewer where that takes long
SCHEMA = 2


@dataclass(frozen=True)
class Throughput:
    """Images a second in training, measured on ``batch`` images of ``macs`` each a step."""

    images_per_s: float
    batch: int
    macs: int
    step_s: float


def describe(recipe: Recipe) -> str:
    """Return ``MLP 3 × 1024`` or ``ConvNet(128), fc 1024``."""
    network = recipe.network
    if network.kind == "convnet":
        return f"ConvNet({network.width}), fc {network.fc}"
    hidden = network.hidden
    if len(set(hidden)) == 1:
        return f"MLP {len(hidden)} × {hidden[0]}"
    return "MLP " + "-".join(map(str, hidden))


def key_of(job: Job, recipe: Recipe, device: str) -> str:
    """Return what a throughput depends on most.

    The modes of a network share one, but by ``precision: fast``, which makes use of what is ±1.
    """
    rule: str = recipe.optimizer.kind
    if recipe.method.kind != "backprop" and job.mode != "float":
        rule = recipe.method.kind
    fast = (recipe.precision, job.mode) if recipe.precision == "fast" else ()
    parts = (recipe.dataset, describe(recipe), recipe.network.norm.kind, rule)
    return ", ".join((*parts, *fast, f"batch {recipe.batch}", f"{job.threads} threads", device))


class Calibration:
    """Throughputs by key, in one file a machine. Another version of torch measures anew.

    Raises:
        HarnessError: the file is of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Throughput] = {}
        if not path.exists():
            return
        held = read_json(path)
        try:
            rows = {key: Throughput(**row) for key, row in held["rows"].items()}
            known = (held["schema"], held["torch"]) == (SCHEMA, torch.__version__)
        except (AttributeError, KeyError, TypeError) as error:
            raise HarnessError(f"{path} holds no throughputs; name another --cache") from error
        self._rows = rows if known else {}

    def get(self, key: str, measure: Callable[[], Throughput]) -> Throughput:
        """Return the throughput of ``key``; measure it and write the file where it is not there.

        Raises:
            HarnessError: the file cannot be written.
        """
        if key not in self._rows:
            self._rows[key] = measure()
            self._save()
        return self._rows[key]

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def _save(self) -> None:
        rows = {key: vars(row) for key, row in self._rows.items()}
        write_json(self.path, {"schema": SCHEMA, "torch": torch.__version__, "rows": rows})


def measure_throughput(job: Job, recipe: Recipe, device: torch.device) -> Throughput:
    """Train a few steps on noise with the job's network, batch and threads, and time them.

    The time of a step is scaled from the measured images to the batch; validation and test, which
    only go forward, are no part of it.
    """
    macs = image_macs(recipe, job.mode)
    batch = max(2, min(recipe.batch, STEP_MACS // macs))
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        step_s = _time_steps(_steps(recipe, job.mode, batch, device), batch, device)
    finally:
        torch.set_num_threads(threads)
    return Throughput(batch / step_s, batch, macs, step_s)


def image_macs(recipe: Recipe, mode: str) -> int:
    """Return the multiply-accumulates of one image's forward pass."""
    return total_macs(layer_costs(recipe.network, get_mode(mode), recipe.dataset))


def _steps(recipe: Recipe, mode: str, batch: int, device: torch.device) -> Steps:
    streams, named = Streams(0, device), get_mode(mode)
    shape = IMAGE_SHAPES[recipe.dataset]
    network = build_network(recipe.network, recipe.deployed_mode(named), streams, shape, None)
    method = build_method(recipe, named, network.to(device), streams)
    method.start_epoch(recipe.method.real_epochs, True)  # of two stages the quantized one
    generator = torch.Generator(device).manual_seed(0)
    count = _steps_held(device)
    x = torch.randn((count * batch, *shape), generator=generator, device=device)
    labels = torch.arange(count * batch, device=device) % CLASSES
    return steps_of(method, Resident(x, labels), batch, count)


def _steps_held(device: torch.device) -> int:
    """Return the steps that a call takes: on a GPU a whole graph."""
    return GRAPH_STEPS if device.type == "cuda" else 1


def _time_steps(steps: Steps, batch: int, device: torch.device) -> float:
    images = torch.arange(_steps_held(device) * batch)

    def begin() -> None:
        steps.begin(images, 0, 0.0, 0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    begin()  # on a GPU captures the step
    steps.step()  # allocates the optimizer's state
    times: list[float] = []
    while sum(times) < SECONDS or (len(times) < STEPS and sum(times) < LONG_SECONDS):
        begin()
        began = time.perf_counter()
        taken = steps.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - began) / taken)
        if not times[-1] > 0:
            raise HarnessError("the clock stood still during a training step")
    return sorted(times)[len(times) // 2]
