"""What a map's gradients in float16, as ``precision: fast`` has them on a GPU, do to the error.

    PYTHONPATH=. python tests/train/half_gradients.py --data DATA --epochs 5 --seed 0 --seed 1

Trains small ConvNets on real CIFAR-10 on the CPU, exactly and with gradients rounded where
``harness/nn/conv_block.py`` rounds them: by the dots and by the map, times ``SCALE`` in float16.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn.layers import Conv3x3
from harness.spec import MODES, load_recipe
from harness.train.record import RunSpec
from harness.train.run import run_training
from kernels.cpu.threads import set_threads
from kernels.triton.norm_backward import GREATEST, SCALE


class _Rounded(Function):
    """The value itself, and its gradient times ``SCALE`` in float16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].mul(SCALE).clamp_(-GREATEST, GREATEST).half().float().div_(SCALE)


@contextmanager
def rounded() -> Iterator[None]:
    """Round the gradients of convolutions from here on."""
    product = Conv3x3.product

    def other(layer: Conv3x3, x: Tensor, weight: Tensor, integers: bool = False) -> Tensor:
        x = _Rounded.apply(x) if x.requires_grad else x  # type: ignore[no-untyped-call]
        dots: Tensor = _Rounded.apply(product(layer, x, weight, integers))  # type: ignore[no-untyped-call]
        return dots

    Conv3x3.product = other  # type: ignore[method-assign]
    try:
        yield
    finally:
        Conv3x3.product = product  # type: ignore[method-assign]


def trained(args: argparse.Namespace, seed: int, folder: Path) -> float:
    """Return the least validation error of a run, in percent."""
    sizes = {"network.width": args.width, "network.fc": 8 * args.width, "epochs": args.epochs}
    recipe = load_recipe("theano", "cifar10", sizes)
    spec = RunSpec(recipe, MODES["bnn-det"], seed, "half-gradients", folder)
    run = run_training(spec, args.data, torch.device("cpu"), 1e9)
    return float(run["valid_error_pct"])


def main() -> None:
    """Print both errors of each seed, and the mean of their differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--width", type=int, default=16, help="maps of the first layer")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, action="append", required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    set_threads(args.threads)
    differences = []
    for seed in args.seed:
        with tempfile.TemporaryDirectory() as folder:
            exact = trained(args, seed, Path(folder) / "exact")
            with rounded():
                half = trained(args, seed, Path(folder) / "half")
        differences.append(half - exact)
        print(f"seed {seed}: validation error {exact:.2f} % exact, {half:.2f} % half", flush=True)
    print(f"difference {statistics.mean(differences):+.2f} points, n = {len(differences)}")


if __name__ == "__main__":
    main()
