"""A Hopper GPU that is none: launches compile for it, and are written down instead of run.

Triton's own launch path up to the driver: what a call makes of its arguments (a size of 1 and a
pointer that is None become constants, a multiple of 16 an alignment), the compiler, the cache, and
what a launch returns. Only the driver is a stand-in, so operands lie on the CPU.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget

import kernels.triton
from kernels.triton import binary_maps, device, dot

PROCESSORS = 132
DEVICE = -1  # a number that no device has: what is compiled for it is nobody else's
LARGEST_GRID = (2**31 - 1, 65_535, 65_535)  # CUDA's limits


@dataclass(frozen=True)
class Launch:
    """A launch: the jit function's name, its grid, what it was compiled to, its arguments."""

    name: str
    grid: tuple[int, int, int]
    metadata: Any
    arguments: dict[str, Any]


@dataclass
class FakeDriver:
    """What Triton asks of a driver between a call and the GPU."""

    launches: list[Launch] = field(default_factory=list)

    def get_current_device(self) -> int:
        """Return ``DEVICE``."""
        return DEVICE

    def get_current_stream(self, _device: int) -> int:
        """Return the default stream."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """Return Hopper."""
        return GPUTarget("cuda", 90, 32)

    @property
    def utils(self) -> "FakeDriver":
        """Return what loads binaries: this."""
        return self

    def get_device_properties(self, _device: int) -> dict[str, int]:
        """Return what one program may take."""
        return {"max_shared_mem": dot.SHARED_BYTES}

    def load_binary(self, *_binary: Any) -> tuple[int, int, int, int, int]:
        """Return module, function, registers, spills and most threads of a program."""
        return 1, 2, 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return a function that writes a launch down."""
        names = source.fn.arg_names

        def launch(x: int, y: int, z: int, *rest: Any) -> None:
            arguments = dict(zip(names, rest[-len(names) :], strict=True))
            self.launches.append(Launch(source.fn.__name__, (x, y, z), metadata, arguments))

        return launch

    def taken(self) -> list[Launch]:
        """Return the launches since the last call."""
        found, self.launches = self.launches, []
        return found


def install(patch: pytest.MonkeyPatch, cache: str, driver: FakeDriver | None = None) -> FakeDriver:
    """Let every launch of ``kernels.triton`` go to a ``FakeDriver``, compiled into ``cache``."""
    driver = driver or FakeDriver()
    patch.setattr(triton.runtime.driver, "_active", driver)
    patch.setattr(triton.knobs.cache, "dir", cache)
    operands_on(patch, "cpu")
    patch.setattr(binary_maps, "why_no_gpu", lambda *_, **__: None)
    for module in modules():
        if hasattr(module, "processors") and module is not device:
            patch.setattr(module, "processors", lambda: PROCESSORS)
        for function in vars(module).values():  # what it launched before is another driver's
            if isinstance(function, triton.JITFunction):
                function.device_caches.pop(DEVICE, None)
    return driver


def modules() -> list[ModuleType]:
    """Return all of ``kernels.triton``: one imported later would keep what is patched now."""
    names = [found.name for found in pkgutil.iter_modules(kernels.triton.__path__)]
    return [importlib.import_module(f"kernels.triton.{name}") for name in names]


def operands_on(patch: pytest.MonkeyPatch, place: str) -> None:
    """Let ``kernels.triton`` take operands on the device ``place``."""
    for module in modules():
        if hasattr(module, "DEVICE"):
            patch.setattr(module, "DEVICE", place)


def check(launch: Launch) -> None:
    """Assert what the GPU's own driver would refuse."""
    assert all(1 <= n <= most for n, most in zip(launch.grid, LARGEST_GRID, strict=True)), launch
    assert launch.metadata.shared <= dot.SHARED_BYTES
    # A kernel that asked for scratch memory would need ``triton.set_allocator``.
    assert launch.metadata.global_scratch_size == launch.metadata.profile_scratch_size == 0
    assert launch.metadata.num_ctas == 1
    for meta in launch.metadata.tensordesc_meta or []:
        assert max(meta["block_size"]) <= 256  # of a box that the tensor memory accelerator fetches
    for value in launch.arguments.values():
        if isinstance(value, torch.Tensor):
            assert value.data_ptr() % value.element_size() == 0
        elif isinstance(value, int):
            assert -(2**31) <= value < 2**31
