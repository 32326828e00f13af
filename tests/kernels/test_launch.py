"""The way from a call to the GPU, as far as it goes without one: see ``fake_driver``."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from kernels.base import Kernel
from kernels.packing import Packed, words_for
from kernels.triton import batch, dot, drop, norm, norm_backward, onebit, update, update_product
from kernels.triton.conv import DirectConv3x3
from kernels.triton.kernels import kernels
from kernels.triton.rules import Rule
from tests.kernels import fake_driver
from tests.kernels.fake_driver import FakeDriver

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

SHAPES = [(1, 1, 1), (5, 33, 130)]
TWO = ["_statistics", "_normalise", "_sums", "_gradient"]
MANY_ROWS = 2_200_000  # more than 65,535 programs of 32 rows


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDriver]:
    with MonkeyPatch.context() as patch:
        yield fake_driver.install(patch, str(tmp_path_factory.mktemp("triton")))


@pytest.fixture
def gpu(installed: FakeDriver) -> FakeDriver:
    installed.taken()
    return installed


def zeros(rows: int, k: int) -> Packed:
    return Packed(torch.zeros(rows, words_for(k), dtype=torch.int64), k)


def layer(n: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(n, dtype=torch.int32), torch.zeros(n, dtype=torch.bool)


def names(gpu: FakeDriver) -> list[str]:
    """Return what was launched since the last call, checked."""
    launches = gpu.taken()
    for launch in launches:
        fake_driver.check(launch)
    return [launch.name for launch in launches]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("kernel", kernels(), ids=lambda kernel: kernel.name)
def test_every_call_of_a_kernel_launches(
    kernel: Kernel, shape: tuple[int, int, int], gpu: FakeDriver
) -> None:
    """Sizes of 1 are constants to the compiler, which neither interpreter nor counts try."""
    m, n, k = shape
    activations, weights = kernel.activations(zeros(m, k)), kernel.weights(zeros(n, k))
    names(gpu)
    u = torch.zeros(m, k, dtype=torch.uint8)
    dots = torch.zeros(m, n, dtype=torch.int32)
    own = ("_naive",) if kernel.name.startswith("naive") else ("_product",)
    calls: dict[str, Callable[[], Any]] = {
        "product": lambda: kernel.product(activations, weights),
        "product to bits": lambda: kernel.product_bits(activations, weights, *layer(n)),
    }
    for what, call in calls.items():
        call()
        assert set(own) <= set(names(gpu)), what
    kernel.activations_from_real(torch.zeros(m, k))
    kernel.activations_from_dots(dots, *layer(n))
    kernel.on_pixels(zeros(n, k))(u)
    kernel.bits_on_pixels(zeros(n, k))(u, *layer(n))
    assert names(gpu)


@pytest.mark.parametrize("size", [(3, 1, 1, 1), (65, 2, 2, 40)], ids=str)
def test_a_convolution_launches_its_popcounts_outside_the_rewrite(
    size: tuple[int, int, int, int], gpu: FakeDriver
) -> None:
    """Compiled under the rewrite, a kernel without a product of single bits is an error."""
    channels, height, width, n = size
    filters = Packed(torch.zeros(n, 9 * words_for(channels), dtype=torch.int64), 9 * channels, 9)
    ready = DirectConv3x3(filters, height, width)
    words = torch.zeros(2, height, width, words_for(channels), dtype=torch.int64)
    names(gpu)
    ready(words)
    assert names(gpu) == ["_ones", "_conv"]
    for pool in (False, True) if height > 1 else (False,):
        ready.bits(words, *layer(n), pool)
        assert names(gpu) == ["_ones", "_conv"]


@pytest.mark.parametrize("with_signs", [False, True], ids=["alone", "signs"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (48, 64, 100, 3), (33, 70, 7, 2)], ids=str)
def test_steps_of_the_optimizer_launch(
    shape: tuple[int, int, int, int], with_signs: bool, gpu: FakeDriver
) -> None:
    n, k, batch, pieces = shape
    w, gradient, m, v = torch.zeros(4, n, k)
    rows = torch.zeros(pieces, batch, n, dtype=torch.bfloat16)
    columns = torch.zeros(batch, k, dtype=torch.bfloat16)
    signs = torch.zeros(n, k, dtype=torch.bfloat16)
    at = torch.tensor(0)
    adam, adamax = Rule.adam((0.5, 0.75), 1), Rule.adamax((0.5, 0.75), 1, with_signs, 1)
    for rule, plan in ((adam, torch.ones(batch, 3)), (adamax, torch.ones(batch, 1))):
        state = (m, v, plan, at, signs if with_signs else None)  # a plan of one step too
        update.update_(rule, w, gradient, *state)
        update_product.update_by_product_(rule, w, rows, columns, *state)
    update.sign_(w, signs if with_signs else gradient)
    assert names(gpu) == ["_update", "_product_update"] * 2 + ["_sign"]


@pytest.mark.parametrize("given", [False, True], ids=["bare", "draws"])
@pytest.mark.parametrize("shape", [(1, 1), (100, 33), (257, 1), (300, 33), (6401, 16)], ids=str)
def test_what_lies_between_products_launches(
    shape: tuple[int, int], given: bool, gpu: FakeDriver
) -> None:
    """Of few rows in one launch, of more in two, for several numbers of blocks."""
    x, draws = torch.zeros(2, *shape)
    columns = torch.zeros(3, shape[1])  # rows of it start off 16 bytes
    dtype = torch.bfloat16 if given else torch.float32
    drawn = draws if given else None
    _, mean, inv_std = norm.norm_sign(x, columns[0], 0.5, *columns[1:], 1e-4, drawn, dtype)
    statistics = (*columns[1:], mean, inv_std)
    options: dict[str, Any] = {"pieces": 2 if given else 0, "gated": given}
    norm_backward.norm_sign_backward(x, x, columns[0], 0.5, *statistics, **options)
    one = ["_strip"] * 2
    assert names(gpu) == (one if shape[0] <= norm.STRIP_ROWS else TWO)
    drop.drop(x, drawn, 0.5 if given else 0.0)
    drop.join(torch.zeros(2, *shape), drawn, 0.5 if given else 0.0)
    labels = torch.zeros(shape[0], dtype=torch.long)
    batch.hinge(x, labels)
    batch.fetch(torch.zeros(len(labels), 1, *shape, dtype=torch.uint8), labels, labels[:2])
    assert names(gpu) == ["_drop", "_join", "_hinge", "_fetch"]


@pytest.mark.parametrize("name", ["naive", "naive-xnor", "xnor-popc", "xnor-csa", "xnor-tensor"])
def test_millions_of_rows_fit_the_grid(name: str, gpu: FakeDriver) -> None:
    (kernel,) = (kernel for kernel in kernels() if kernel.name == name)
    kernel.product(kernel.activations(zeros(MANY_ROWS, 1)), kernel.weights(zeros(1, 1)))
    assert names(gpu)


def test_the_second_launch_compiles_nothing_and_is_checked_again(
    gpu: FakeDriver, monkeypatch: MonkeyPatch
) -> None:
    """As a graph's capture demands of a call that ran before."""
    compiled: list[str] = []
    monkeypatch.setattr(
        triton.knobs.compilation, "listener", lambda src, **_: compiled.append(src.name)
    )
    checked: list[str] = []
    check = onebit.check
    monkeypatch.setattr(
        onebit, "check", lambda kernel: checked.append(kernel.name) or check(kernel)
    )
    (kernel,) = (kernel for kernel in kernels() if kernel.name == "xnor-tensor")
    m, n, k = 3, 7, 65
    weights, first = kernel.weights(zeros(n, k)), kernel.activations(zeros(m, k))
    second = kernel.activations(zeros(m, k))
    dot._product.device_caches.pop(fake_driver.DEVICE, None)
    compiled.clear()
    kernel.product(first, weights)
    assert compiled == ["_product"]
    kernel.product(second, weights)
    assert compiled == ["_product"]
    assert checked == ["_product"] * 2


def test_an_8_bit_product_left_in_the_cache_is_caught_at_the_launch(
    gpu: FakeDriver, monkeypatch: MonkeyPatch
) -> None:
    """The hazard of ``onebit`` by the way of a launch: no hook where the kernel is compiled."""
    monkeypatch.setattr(onebit, "_hook", None)
    rows = torch.zeros(2, dot.BYTE_STEP, dtype=torch.uint8)
    out = torch.empty(2, 2, dtype=torch.int32)
    dot._product.device_caches.pop(fake_driver.DEVICE, None)
    with pytest.raises(onebit.RewriteError, match="8-bit product is left .*e4m3"):
        dot.launch(rows, rows, out, 2, dot.Terms())
    dot._product.device_caches.pop(fake_driver.DEVICE)


def test_descriptors_begin_and_step_by_16_bytes(gpu: FakeDriver) -> None:
    (kernel,) = (kernel for kernel in kernels() if kernel.name == "xnor-tensor-tma")
    kernel.product(kernel.activations(zeros(3, 1)), kernel.weights(zeros(5, 1)))
    (launch,) = (launch for launch in gpu.taken() if "a_desc" in launch.arguments)
    left, right = launch.arguments["a_desc"], launch.arguments["b_desc"]
    for descriptor, rows in ((left, 3), (right, 5)):
        assert list(descriptor.shape) == [rows, dot.BYTE_STEP]
        assert descriptor.strides[0] % 16 == descriptor.base.data_ptr() % 16 == 0
        assert descriptor.base.dtype == torch.float8_e4m3fn
