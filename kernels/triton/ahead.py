"""Kernels compiled before they are launched, by processes that need no GPU.

Triton compiles a kernel at its first launch, one after the other: two hundred variants take
minutes, on one core. While ``recording`` calls launch nothing and say what they would have; any
process compiles it then, into the folder where the launch finds it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver

from kernels.triton import device, onebit


@dataclass(frozen=True)
class Wanted:
    """A variant of a kernel: a jit function of a module, at types, sizes and constants.

    Attributes:
        module: that defines the function.
        function: its name.
        data: what Triton's ``preload`` takes.
        one_bit: compiled with the rewrite of ``onebit``.
    """

    module: str
    function: str
    data: str
    one_bit: bool


class _Driver:
    """What Triton asks of a driver between a call and the compiler."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_device(self) -> int:
        """Return the first device."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """Return the default stream."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """Return what is compiled for."""
        return self._target


def compile_for(gpu: device.Gpu) -> None:
    """Let this process compile for ``gpu``, which it does not touch."""
    device.compile_for(gpu)
    major, minor = gpu.capability
    triton.runtime.driver.set_active(_Driver(GPUTarget("cuda", 10 * major + minor, 32)))


@contextmanager
def recording() -> Iterator[set[Wanted]]:
    """Yield a set that fills with what calls inside would launch: nothing is compiled or run."""
    found: set[Wanted] = set()

    def hold_back(*, fn: Any, compile: dict[str, Any], **_others: Any) -> bool:
        data, name = compile["specialization_data"], fn.jit_function.fn.__name__
        found.add(Wanted(fn.module, name, data, onebit.is_rewriting()))
        return True

    runtime = triton.knobs.runtime
    before, runtime.jit_cache_hook = runtime.jit_cache_hook, hold_back
    try:
        yield found
    finally:
        runtime.jit_cache_hook = before


def compile_wanted(wanted: Wanted) -> None:
    """Compile a variant into Triton's cache, with the launcher in C that Triton 3.6 makes of it."""
    function = getattr(import_module(wanted.module), wanted.function)
    with onebit.rewriting() if wanted.one_bit else nullcontext():
        kernel = function.preload(wanted.data)
        if hasattr(driver, "make_launcher"):  # Triton 3.7 has one for all
            driver.CudaLauncher(kernel.src, kernel.metadata)
