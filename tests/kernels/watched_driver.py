"""A driver that tells which memory each launch of Triton reads and which it writes.

In Triton's own IR every address is made from the kernel's arguments, and every access is a load, a
store or an atomic.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor
from triton.runtime.cache import get_cache_manager

from tests.kernels import fake_driver
from tests.kernels.fake_driver import FakeDriver, Launch
from tests.kernels.fake_streams import Recorder

NAME = re.compile(r"%[\w$.-]+")
RESULT = re.compile(r"(%[\w$.-]+)(?::\d+)? = ")
ARGUMENT = re.compile(r"(%[\w$.-]+): !tt\.ptr")
CARRIED = re.compile(r"(%[\w$.-]+) = (%[\w$.-]+)")
POINTER = "!tt.ptr"
ACCESSES = {
    "tt.load": (True, False),
    "tt.store": (False, True),
    "tt.atomic_rmw": (True, True),
    "tt.atomic_cas": (True, True),
}
MOVES = (
    "tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans",
    "tt.bitcast", "arith.select",
)  # fmt: skip


def roles(ir: str) -> tuple[set[str], set[str]]:
    """Return the names of the pointer arguments that a kernel in Triton's IR reads and writes.

    Raises:
        ValueError: a pointer goes a way that this does not follow.
    """
    reads: set[str] = set()
    writes: set[str] = set()
    roots: dict[str, set[str]] = {}  # of each address, the arguments that it is made from
    loops: list[list[str]] = []  # that are open, by what they carry
    for line in ir.splitlines():
        text = line.split(" loc(")[0].strip()
        if text.startswith("tt.func"):
            roots = {name: {name[1:]} for name in ARGUMENT.findall(line)}
        elif POINTER in text:
            result = RESULT.match(text)
            body = text[result.end() :] if result else text
            operation = body.split(" ", 1)[0]
            operands = NAME.findall(body.split(" : ")[0])
            if operation in ACCESSES:
                if operands[0] not in roots:
                    raise ValueError(f"an address from nowhere: {text}")
                for into, wanted in zip((reads, writes), ACCESSES[operation], strict=True):
                    into |= roots[operands[0]] if wanted else set()
            elif operation == "scf.for":  # a pointer that moves from step to step
                carried = CARRIED.findall(text.split("iter_args", 1)[1])
                roots |= {name: roots[start] for name, start in carried if start in roots}
                loops.append([name for name, _ in carried])
            elif operation == "scf.yield":  # of the innermost loop: by the same argument on
                for name, kept in zip(operands, loops.pop(), strict=True):
                    if roots.get(name) != roots.get(kept):
                        raise ValueError(f"a pointer becomes another's: {text}")
            elif operation in MOVES and result:
                found = [roots[name] for name in operands if name in roots]
                roots[result[1]] = set().union(*found)
            else:
                raise ValueError(f"a pointer goes through {operation}: {text}")
    return reads, writes


class WatchedDriver(FakeDriver):
    """A driver whose launches go to the streams of a recorder."""

    recorder: Recorder

    def get_current_stream(self, _device: int) -> int:
        """Return the number of the recorder's stream."""
        return self.recorder.current_stream().index

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return a function that records a launch."""
        names, name = source.fn.arg_names, metadata.name
        path = get_cache_manager(metadata.hash).get_file(f"{name}.ttir")
        assert path is not None
        read, written = roles(Path(path).read_text())

        def launch(x: int, y: int, z: int, stream: int, *rest: Any) -> None:
            arguments = dict(zip(names, rest[-len(names) :], strict=True))
            fake_driver.check(Launch(name, (x, y, z), metadata, arguments))
            tensors = {k: v for k, v in arguments.items() if isinstance(v, Tensor)}
            reads, writes = ([tensors[k] for k in tensors if k in of] for of in (read, written))
            self.recorder.operation(stream, name, reads, writes, [x, y, z, *arguments.values()])

        return launch
