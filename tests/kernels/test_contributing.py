"""The example kernel of CONTRIBUTING.md does what it says there."""

import re
from pathlib import Path

import pytest
import torch

from harness.bench.doctor import try_kernel
from kernels import reference
from kernels.base import Kernel
from kernels.packing import pack_rows

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def table() -> Kernel:
    (example,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, type[Kernel]] = {"__name__": "example"}  # type: ignore[dict-item]
    exec(compile(example, str(GUIDE), "exec"), names)
    return names["Table"]()


@pytest.mark.parametrize("k", [1, 63, 64, 65, 784], ids="K{}".format)
def test_the_example_is_exact(table: Kernel, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    a, w = (torch.randn(rows, k, generator=generator) for rows in (17, 10))
    dots = table.product(table.activations(pack_rows(a)), table.weights(pack_rows(w)))
    signs = (2 * (x >= 0).int() - 1 for x in (a, w))
    assert torch.equal(dots, reference.gemm(*signs))
    assert try_kernel(table) is None


def test_the_example_says_why_not_and_refuses_operands(table: Kernel) -> None:
    assert table.why_not(8192, 8192, 8192) == "8192 x 8192 x 8192 needs 64 times 4 GiB " + (
        "for the table's answers"
    )
    with pytest.raises(ValueError, match="activations have K=64, the weights K=65"):
        table.product(pack_rows(torch.ones(1, 64)), pack_rows(torch.ones(1, 65)))
    with pytest.raises(TypeError, match="activations must be Packed"):
        table.product(torch.ones(1, 64), pack_rows(torch.ones(1, 64)))


def test_the_line_it_asks_for_is_where_it_says() -> None:
    registry = (GUIDE.parent / "kernels" / "registry.py").read_text()
    assert "KERNELS: dict[tuple[str, str], Kernel]" in registry
    assert "XnorCpu()," in registry
