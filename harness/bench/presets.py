"""The whole set of cases for a CPU or a GPU, as data: what ``bnn bench --preset`` runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.bench.cases import Case, get_case
from harness.bench.runner import Settings
from harness.errors import HarnessError
from kernels.cpu.threads import available_threads

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


def _large_cpu() -> tuple[str, ...]:
    """Return the kernels that large cases clock: int8 and bfloat16 where they have instructions."""
    from kernels.cpu import vectors

    return _CPU if vectors.VNNI else _FAST_CPU


def _cpu_items() -> list[Item]:
    both, large = ("square-1024", "square-2048", "mnist-mlp-4096", "square-4096"), _large_cpu()
    found = [Item(case, large, 1.0, one) for case in ("ceilings", *both) for one in (False, True)]
    found += [Item("square-512", _CPU, 0.5, one) for one in (False, True)]
    found += [Item("square-8192", large, 1.0, one) for one in (False, True)]
    found += [Item("square-256", _CPU, 0.5), Item("mnist-mlp-4096x100", _FAST_CPU, 0.5)]
    found += _items(_MLP + _CONVNET, _FAST_CPU, 0.3)
    return found + _items(_MAPS, tuple(name for name in large if name != "vendor-int8"), 0.3)


# Layers, on which a GPU spends well under a millisecond, are left to fewer kernels: each benchmark
# costs more in making and capturing its operands than in time clocked.
_LAYERS_GPU = (
    "naive", "naive-xnor", "xnor-popc", "xnor-csa", "xnor-tensor", "xnor-tensor-tma", "triton-int8",
    "vendor-fp32", "vendor-bf16", "vendor-int8", "vendor-fp8", "vendor-fp8-fast",
)  # fmt: skip
# Of 16,384 a side, where a naive product takes ten seconds.
_LARGE_GPU = (
    "vendor-fp32", "vendor-tf32", "vendor-bf16", "vendor-int8", "vendor-fp8-fast", "triton-int8",
    "xnor-popc", "xnor-csa", "xnor-tensor", "xnor-tensor-tma",
)  # fmt: skip
_MAPS_GPU = (
    "naive", "xnor-popc", "xnor-tensor", "vendor-fp32", "vendor-tf32", "vendor-bf16", "vendor-int8",
)  # fmt: skip


def _gpu_items() -> list[Item]:
    """Cases in order of worth: what comes last is left out first where time is short."""
    found = [Item("ceilings", ("all",), 0.2), Item("square-8192", ("all",), 0.1)]
    found += [Item("mnist-mlp-4096", ("all",), 0.1)]
    found += _items(("square-4096", "square-1024", "square-2048"), ("all",), 0.05)
    found += _items(_MAPS, _MAPS_GPU, 0.03)
    found += _items(("mnist-mlp-4096x1", "mnist-mlp-4096x100"), ("all",), 0.03)
    found += _items(_MLP + _CONVNET, _LAYERS_GPU, 0.02)
    found += _items(("square-256", "square-512"), ("all",), 0.05)
    return [*found, Item("square-16384", _LARGE_GPU, 0.05)]


@dataclass(frozen=True)
class Preset:
    """A device's cases, and the minutes that they may take unless the command says otherwise."""

    device: str
    items: Callable[[], list[Item]]
    minutes: float = math.inf


PRESETS = {"cpu": Preset("cpu", _cpu_items), "gpu": Preset("cuda", _gpu_items, 8.0)}


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        HarnessError: an unknown preset.
    """
    if name not in PRESETS:
        raise HarnessError(f"--preset: unknown preset {name!r}; allowed: {', '.join(PRESETS)}")
    return PRESETS[name]


def preset_settings(
    name: str, limit: float = math.inf, added: Sequence[str] = ()
) -> Iterator[tuple[Case, Settings]]:
    """Yield the cases of a preset with how each is benched: its kernels and those ``added``.

    Raises:
        HarnessError: an unknown preset, or a kernel that its device does not have.
    """
    from kernels import registry

    preset = get_preset(name)
    try:
        more = registry.resolve(added, preset.device)
    except ValueError as error:
        raise HarnessError(f"--kernel: {error}") from error
    for item in preset.items():
        threads = 1 if item.one_thread else available_threads()
        if item.one_thread and available_threads() == 1:
            continue
        names = tuple(registry.resolve((*item.kernels, *more), preset.device))
        suffix = "-1t" if item.one_thread else ""
        yield (
            get_case(item.case),
            Settings(names, preset.device, item.seconds, threads, limit, suffix),
        )
