"""Time a captured training step on a GPU beside the eager port (``rival.py``), and profile it.

    export PYTHONPATH=.
    python tests/train/gpu_step.py --precision fast                           # MLP 3 x 4096
    python tests/train/gpu_step.py --precision fast --network convnet         # ConvNet(128)
    python tests/train/gpu_step.py --precision fast --network convnet --width 64 --images 598388

Random data. A sample is the time of ``--steps`` steps by the device's events, divided by them; the
port's samples come between. ``--profile 20`` lists the device's time by kernel over as many steps.
``--beside mlp:2048:torch7:bnn-stoch`` (network, width, recipe, mode) takes another network's steps
in turn with them, a graph each, as ``bnn run --mixed`` does.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from step_bench import build, image_shape, parse, parser
from versus_rival import theirs

from harness.methods.backprop import Backprop
from harness.nn import tf32
from harness.train.evaluation import evaluate
from harness.train.inputs import Resident
from harness.train.steps import GRAPH_STEPS, EagerSteps, GraphedSteps, Steps

SAMPLES, WARM_UP, PORT_STEPS = 9, 2, 5
HELD_IMAGES = 10_000  # that the batches come from


def steps_of(args: argparse.Namespace) -> Steps:
    """Return the harness's steps over random images, begun."""
    _, method = build(args, batch=args.batch)
    assert isinstance(method, Backprop)
    method.start_epoch(0, fresh=True)
    pixels = torch.randint(0, 256, (HELD_IMAGES, *image_shape(args)), dtype=torch.uint8)
    labels = torch.randint(0, 10, (HELD_IMAGES,))
    held = Resident(pixels.to(args.device), labels.to(args.device))
    count = HELD_IMAGES // args.batch
    steps: Steps = EagerSteps(method, held, args.batch)
    if args.device == "cuda" and not args.eager:
        steps = GraphedSteps(method, held, args.batch, count)
    begin(steps)
    return steps


def begin(steps: Steps) -> None:
    """Start an epoch in a new order."""
    steps.begin(torch.randperm(HELD_IMAGES), 0, 0.0, 0)


def repeat(step: Callable[[], Any], count: int) -> int:
    """Take at least ``count`` steps and return how many; a call takes one, or says how many."""
    taken = 0
    while taken < count:
        found = step()
        taken += found if isinstance(found, int) else 1
    return taken


def ms_each(step: Callable[[], Any], count: int) -> float:
    """Return the device's time of a step in ms, over ``count`` of them or a few more."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    taken = repeat(step, count)
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / taken


def evaluation_s(steps: Any) -> float:
    """Return the seconds that the network at test time takes for the images held, the second time.

    The host waits for the result, as at an epoch's end.
    """
    network = steps.method.network
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        evaluate(network, steps.train)
        seconds = time.perf_counter() - began
    network.train()
    return seconds


def profile(step: Callable[[], Any], count: int) -> str:
    """Return a table of the device's time by kernel."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as found:
        repeat(step, count)
        torch.cuda.synchronize()
    table = found.key_averages().table(sort_by="self_cuda_time_total", row_limit=30)
    return str(table)


def in_turns_ms(steps: Steps, others: Steps, rounds: int) -> float:
    """Return the time of a step of both in ms: a graph of each in turn, each on its own stream."""
    both = [(part, torch.cuda.Stream()) for part in (steps, others)]
    taken = 0
    for part, _ in both:
        begin(part)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        for part, stream in both:
            with torch.cuda.stream(stream):
                taken += part.step()
    torch.cuda.synchronize()
    return 2000 * (time.perf_counter() - began) / taken


def beside(args: argparse.Namespace) -> Steps:
    """Return the steps of the network that ``--beside`` names, begun."""
    network, width, recipe, mode = args.beside.split(":")
    batch = 100 if network == "mlp" else 50
    named = {"network": network, "width": int(width), "recipe": recipe, "mode": mode}
    return steps_of(argparse.Namespace(**{**vars(args), **named, "batch": batch}))


def main() -> None:
    """Print both times, their ratio and what an epoch takes."""
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=["cuda"], default="cuda")
    arguments.add_argument("--steps", type=int, default=100, help="steps of a sample")
    arguments.add_argument("--images", type=int, default=50_000, help="of an epoch to foresee")
    arguments.add_argument("--profile", type=int, default=0, help="steps to profile")
    arguments.add_argument("--beside", help="NETWORK:WIDTH:RECIPE:MODE, in turns")
    arguments.add_argument("--eager", action="store_true", help="do not capture the step")
    args = parse(arguments)
    if not torch.cuda.is_available():
        arguments.error("torch finds no CUDA device")
    torch.backends.cudnn.benchmark = args.precision == "fast"  # as a run has it
    if args.precision == "exact":  # the port multiplies in float32 too
        tf32.forbid()
    steps, pixels = steps_of(args), torch.rand(args.batch, *image_shape(args), device="cuda")
    port = theirs(args, 2 * pixels - 1, torch.randint(0, 10, (args.batch,), device="cuda"))
    found: list[float] = []
    others: list[float] = []
    for sample in range(WARM_UP + SAMPLES):
        begin(steps)
        ours_ms = ms_each(steps.step, min(args.steps, HELD_IMAGES // args.batch))
        port_ms = ms_each(port, PORT_STEPS)
        if sample >= WARM_UP:
            found.append(ours_ms)
            others.append(port_ms)
    ours_ms, port_ms = statistics.median(found), statistics.median(others)
    print(f"{args.network} {args.width}, batch {args.batch}, {args.recipe}, {args.mode}, ", end="")
    print(f"{args.precision}, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"step {ours_ms:.4f} ms (fastest {min(found):.4f}, slowest {max(found):.4f}), ", end="")
    print(f"{1000 * args.batch / ours_ms:.0f} images/s; port {port_ms:.4f} ms: ", end="")
    print(f"{port_ms / ours_ms:.2f} times as fast")
    epoch_s = args.images // args.batch * ours_ms / 1000
    held_s = evaluation_s(steps)
    print(f"an epoch of {args.images} images: {epoch_s:.2f} s, ", end="")
    print(f"the evaluation of {HELD_IMAGES}: {held_s:.4f} s")
    if args.beside:
        others = beside(args)
        rounds = HELD_IMAGES // 100 // GRAPH_STEPS  # of graphs, fewer than either's epoch
        times = [in_turns_ms(steps, others, rounds) for _ in range(WARM_UP + SAMPLES)]
        print(
            f"a step of each in turns, {args.beside}: {statistics.median(times[WARM_UP:]):.4f} ms"
        )
    if args.profile:
        begin(steps)
        print(profile(steps.step, args.profile))


if __name__ == "__main__":
    main()
