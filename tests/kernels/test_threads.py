"""numba's pool does not change how many threads torch works on."""

import os
import subprocess
import sys

# In a process of its own: numba starts its pool, and OpenMP's with it, once.
PROGRAM = """
import numba, numpy, torch
from kernels.cpu import pack
from kernels.cpu.threads import set_threads
set_threads({count})
pack.reals(numpy.ones((2, 64), dtype=numpy.float32), numpy.zeros((2, 1), dtype=numpy.int64))
print(torch.get_num_threads(), numba.get_num_threads())
"""


def test_both_take_the_number_given() -> None:
    most = 2  # as many as NUMBA_NUM_THREADS below
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(count=count)],
            capture_output=True, text=True, check=True, timeout=120,
            env={**os.environ, "NUMBA_NUM_THREADS": str(most)},
        )  # fmt: skip
        assert done.stdout.split() == [str(count), str(min(count, most))]
