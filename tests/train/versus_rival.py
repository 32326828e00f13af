"""Time a train step of the harness and of the eager port (``rival.py``), side by side.

    export PYTHONPATH=.
    python tests/train/versus_rival.py                                # MLP 3 x 4096, batch 100
    python tests/train/versus_rival.py --network convnet --width 128  # batch 50
    python tests/train/versus_rival.py --width 1024 --recipe torch7 --threads 1

Steps alternate, so that both meet the same state of the machine; the first steps, which compile
and allocate, are not counted. Prints median, p20 and p80 of each and the ratio of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rival import Rival, convnet, mlp

from harness.methods import build_method
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe

WARM_UP = 2


def ours(args: argparse.Namespace, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Return the harness's step on odd integers ``255 x``."""
    is_mlp = args.network == "mlp"
    size = {"network.hidden": [args.width] * 3} if is_mlp else {"network.width": args.width}
    recipe = load_recipe(args.recipe, "mnist" if is_mlp else "cifar10", size)
    streams = Streams(0)
    shape = (1, 28, 28) if is_mlp else (3, 32, 32)
    mode = recipe.deployed_mode(MODES[args.mode])
    network = build_network(recipe.network, mode, streams, shape, (1 / 255, 0.0))
    method = build_method(recipe, MODES[args.mode], network, streams)
    method.start_epoch(0, fresh=True)
    given = x * 255 if network.integer_input else x
    return lambda: method.step(given, labels)


def theirs(args: argparse.Namespace, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Return the port's step."""
    network = mlp([args.width] * 3) if args.network == "mlp" else convnet(args.width)
    rival = Rival(network)
    return lambda: rival.step(x, labels)


def times_ms(step: Callable[[], Any], other: Callable[[], Any], steps: int) -> list[list[float]]:
    """Return the two steps' times in ms, taken in turn."""
    found: list[list[float]] = [[], []]
    for i in range(WARM_UP + steps):
        for run, kept in ((step, found[0]), (other, found[1])):
            began = time.perf_counter()
            run()
            if i >= WARM_UP:
                kept.append(1000 * (time.perf_counter() - began))
    return found


def describe(name: str, found: list[float], batch: int) -> str:
    """Return a line with median, p20, p80 and throughput."""
    low, median, high = (statistics.quantiles(found, n=10)[i] for i in (1, 4, 7))
    rate = 1000 * batch / median
    return f"{name:8s} {median:9.1f} ms (p20 {low:.1f}, p80 {high:.1f}) {rate:9.0f} images/s"


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["mlp", "convnet"], default="mlp")
    parser.add_argument("--width", type=int, help="units, or maps of the first layer")
    parser.add_argument("--batch", type=int, help="images a step; default 100, convnet 50")
    parser.add_argument("--recipe", default="theano", help="theano or torch7")
    parser.add_argument("--mode", choices=sorted(MODES), default="bnn-det")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each; at least 2")
    args = parser.parse_args()
    args.width = args.width or (4096 if args.network == "mlp" else 128)
    args.batch = args.batch or (100 if args.network == "mlp" else 50)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    side, channels = (28, 1) if args.network == "mlp" else (32, 3)
    pixels = torch.randint(0, 256, (args.batch, channels, side, side))
    x, labels = (2 * pixels - 255) / 255, torch.randint(0, 10, (args.batch,))
    found = times_ms(ours(args, x, labels), theirs(args, x, labels), args.steps)
    print(f"{args.network} {args.width}, batch {args.batch}, {args.recipe}, {args.mode}, ", end="")
    print(f"threads {args.threads}, torch {torch.__version__}")
    print(describe("harness", found[0], args.batch))
    print(describe("rival", found[1], args.batch))
    print(f"rival / harness: {statistics.median(found[1]) / statistics.median(found[0]):.2f}")


if __name__ == "__main__":
    main()
