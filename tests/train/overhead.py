"""What the harness adds to a train step: fetching the batch, sums, the bar, checks of the clock.

    PYTHONPATH=. python tests/train/overhead.py                                # MLP 3 x 4096
    PYTHONPATH=. python tests/train/overhead.py --network convnet --width 32

Trains epochs of random images through the harness's own loop with its progress bar, takes the time
within the step function apart from the epoch's, and prints what is left in percent of the step.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from step_bench import build, image_shape, parse, parser

from harness.methods import Method
from harness.train.inputs import Resident
from harness.train.loop import Trainer
from harness.train.progress import ProgressBar


class Clocked:
    """A method whose steps are clocked."""

    def __init__(self, method: Method) -> None:
        self._method, self.seconds = method, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def step(self, x: torch.Tensor, labels: torch.Tensor) -> Any:
        """Take the method's step."""
        began = time.perf_counter()
        done = self._method.step(x, labels)
        self.seconds += time.perf_counter() - began
        return done


def random_split(images: int, shape: tuple[int, int, int]) -> Resident:
    """Return random pixels and labels."""
    pixels = torch.randint(0, 256, (images, *shape), dtype=torch.uint8)
    return Resident(pixels, torch.randint(0, 10, (images,)))


def overheads_pct(args: argparse.Namespace) -> tuple[list[float], float]:
    """Return each counted epoch's overhead in percent, and the last epoch's ms a step."""
    recipe, bare = build(args, batch=args.batch, epochs=args.epochs + 1)
    method, shape = Clocked(bare), image_shape(args)
    split = random_split(args.steps * args.batch, shape)
    splits = {"train": split, "valid": random_split(100, shape), "test": random_split(100, shape)}
    found, before, step_ms = [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, method, splits, Path(folder), "", 60.0)  # type: ignore[arg-type]

        def on_epoch(metrics: dict[str, Any], best: bool) -> None:
            nonlocal before, step_ms
            inside, before = method.seconds - before, method.seconds
            found.append(100 * (metrics["seconds"] - inside) / inside)
            step_ms = 1000 * inside / args.steps
            bar.epoch(metrics)

        with ProgressBar(recipe.epochs, args.steps, args.batch) as bar:
            bar.start(trainer.progress)
            for progress in trainer.advance(on_epoch):
                bar.step(progress)
    return found[1:], step_ms  # the first epoch compiles and allocates


def main() -> None:
    """Print the overhead."""
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=20, help="steps an epoch")
    arguments.add_argument("--epochs", type=int, default=3, help="counted epochs")
    args = parse(arguments)
    found, step_ms = overheads_pct(args)
    print(f"{args.network} {args.width}, batch {args.batch}, {args.recipe}, threads {args.threads}")
    print(
        f"step {step_ms:.1f} ms; the harness adds {statistics.median(found):.2f} % (median of ",
        end="",
    )
    print(f"{len(found)} epochs of {args.steps} steps; largest {max(found):.2f} %)")


if __name__ == "__main__":
    main()
