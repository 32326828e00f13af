"""``bnn bench --preset``: the whole set of cases for a CPU or a GPU, as data, and its resuming."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.cases import get_case
from harness.bench.runner import Settings, available_threads, case_file, run_case
from harness.errors import HarnessError
from harness.files import read_json
from harness.provenance import machine_name

_CPU = ("naive", "xnor-cpu", "vendor-fp32", "vendor-bf16", "vendor-int8")
_FAST_CPU = ("naive", "xnor-cpu", "vendor-fp32")
# The ConvNet's layers as products of patches, 10 images of CIFAR-10: width 128, then 64.
_CONVNET = (
    "layer-10240x128x1152", "layer-2560x256x1152", "layer-2560x256x2304", "layer-640x512x2304",
    "layer-640x512x4608", "layer-10x1024x8192",
    "layer-10240x64x576", "layer-2560x128x576", "layer-640x256x1152", "layer-640x256x2304",
)  # fmt: skip
# The hidden convolutions of ConvNet(128), straight from maps, 50 images.
_MAPS = (
    "conv-50x32x128x128", "conv-50x16x128x256", "conv-50x16x256x256", "conv-50x8x256x512",
    "conv-50x8x512x512",
)  # fmt: skip
_MLP = tuple(f"layer-{m}x4096x{k}" for m in (1, 100, 10_000) for k in (784, 4096))


@dataclass(frozen=True)
class Item:
    """A case with its kernels; ``one_thread`` benches it on one thread (CPU)."""

    case: str
    kernels: tuple[str, ...]
    seconds: float
    one_thread: bool = False


def _items(cases: tuple[str, ...], kernels: tuple[str, ...], seconds: float) -> list[Item]:
    return [Item(case, kernels, seconds) for case in cases]


def _cpu_items() -> list[Item]:
    both = ("ceilings", "square-1024", "square-2048", "mnist-mlp-4096", "square-4096")
    found = [Item(case, _FAST_CPU, 1.0, one) for case in both for one in (False, True)]
    found += [Item("square-512", _CPU, 0.5, one) for one in (False, True)]
    found += [Item("square-8192", _FAST_CPU, 1.0, one) for one in (False, True)]
    found += [Item("square-256", _CPU, 0.5), Item("mnist-mlp-4096x100", _FAST_CPU, 0.5)]
    return found + _items(_MLP + _CONVNET + _MAPS, _FAST_CPU, 0.3)


def _gpu_items() -> list[Item]:
    squares = tuple(f"square-{size}" for size in (8192, 1024, 2048, 4096, 256, 512, 16384))
    mlp = ("mnist-mlp-4096", "mnist-mlp-4096x1", "mnist-mlp-4096x100")
    first = [Item("ceilings", ("all",), 1.0)]
    return first + _items(squares + mlp, ("all",), 0.5) + _items(_MLP + _CONVNET, ("all",), 0.2)


PRESETS: dict[str, tuple[str, Callable[[], list[Item]]]] = {
    "cpu": ("cpu", _cpu_items),
    "gpu": ("cuda", _gpu_items),
}


def preset_settings(name: str, limit: float) -> Iterator[tuple[Any, Settings]]:
    """Yield the cases of a preset with how each is benched.

    Raises:
        HarnessError: an unknown preset.
    """
    from kernels import registry

    if name not in PRESETS:
        raise HarnessError(f"--preset: unknown preset {name!r}; allowed: {', '.join(PRESETS)}")
    device, items = PRESETS[name]
    for item in items():
        threads = 1 if item.one_thread else available_threads()
        if item.one_thread and available_threads() == 1:
            continue
        names = tuple(registry.resolve(item.kernels, device))
        suffix = "-1t" if item.one_thread else ""
        yield (
            get_case(item.case),
            Settings(names, device, item.seconds, threads, limit, suffix),
        )


def is_whole(path: Path, settings: Settings) -> bool:
    """Tell whether a bench file has a row for every kernel that would be benched."""
    try:
        document = read_json(path)
        rows = [row["extra_info"] for row in document["benchmarks"]]
    except (HarnessError, KeyError, TypeError):
        return False
    if not rows:
        return False
    ceiling = rows[0]["group"] == "ceiling"
    return ceiling or {row["kernel"] for row in rows} >= set(settings.kernels)


def run_preset(
    name: str, out: Path | None, limit: float, fresh: bool, show: Callable[[Any, str], None]
) -> tuple[Path, bool]:
    """Bench a preset below ``out`` (default: ``results/reference/<machine>``) and collect frames.

    A case whose file is whole is skipped unless ``fresh``. ``show`` gets each document as soon as
    it is there, with where it stands: ``3/24``.

    Returns:
        The folder of the frames, and whether some kernel was wrong or failed.
    """
    from harness.report.collect import collect

    folder = out or Path("results") / "reference" / machine_name()
    todo = list(preset_settings(name, limit))
    red = False
    for at, (case, settings) in enumerate(todo, 1):
        path = case_file(folder / "bench", case, settings)
        if not fresh and is_whole(path, settings):
            document = read_json(path)
        else:
            path, document = run_case(case, settings, folder / "bench")
            show(document, f"{at}/{len(todo)}")
        statuses = {row["extra_info"]["status"] for row in document["benchmarks"]}
        red = red or not {"wrong", "failed"}.isdisjoint(statuses)
    collect(folder, keep=True)
    return folder, red
