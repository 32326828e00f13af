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
from step_bench import build, image_shape, parse, parser

WARM_UP = 2


def ours(args: argparse.Namespace, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Return the harness's step on odd integers ``255 x``."""
    _, method = build(args)
    method.start_epoch(0, fresh=True)
    given = x * 255 if method.network.integer_input else x
    return lambda: method.step(given, labels)


def theirs(args: argparse.Namespace, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Return the port's step."""
    network = mlp([args.width] * 3) if args.network == "mlp" else convnet(args.width)
    rival = Rival(network.to(x.device))
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
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=5, help="counted steps of each; at least 2")
    args = parse(arguments)
    pixels = torch.randint(0, 256, (args.batch, *image_shape(args)))
    x, labels = (2 * pixels - 255) / 255, torch.randint(0, 10, (args.batch,))
    found = times_ms(ours(args, x, labels), theirs(args, x, labels), args.steps)
    print(f"{args.network} {args.width}, batch {args.batch}, {args.recipe}, {args.mode}, ", end="")
    print(f"threads {args.threads}, torch {torch.__version__}")
    print(describe("harness", found[0], args.batch))
    print(describe("rival", found[1], args.batch))
    print(f"rival / harness: {statistics.median(found[1]) / statistics.median(found[0]):.2f}")


if __name__ == "__main__":
    main()
