"""What the two benches of a train step share: their command line, and the method they clock."""

import argparse
from typing import Any

import torch

from harness.methods import Method, build_method
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import MODES, Recipe, load_recipe
from kernels.cpu.threads import set_threads


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the network and how it is trained."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--network", choices=["mlp", "convnet"], default="mlp")
    found.add_argument("--width", type=int, help="units (4096), or maps of the first layer (128)")
    found.add_argument("--batch", type=int, help="images a step; default 100, convnet 50")
    found.add_argument("--recipe", default="theano", help="theano or torch7")
    found.add_argument("--mode", choices=sorted(MODES), default="bnn-det")
    found.add_argument("--precision", choices=["exact", "fast"], default="exact")
    found.add_argument("--threads", type=int, default=torch.get_num_threads())
    return found


def parse(arguments: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the command line's values, the network's sizes filled in; set threads and seed."""
    args = arguments.parse_args()
    args.width = args.width or (4096 if args.network == "mlp" else 128)
    args.batch = args.batch or (100 if args.network == "mlp" else 50)
    set_threads(args.threads)
    torch.manual_seed(0)
    return args


def image_shape(args: argparse.Namespace) -> tuple[int, int, int]:
    """Return MNIST's shape for the MLP, CIFAR-10's for the ConvNet."""
    return (1, 28, 28) if args.network == "mlp" else (3, 32, 32)


def build(args: argparse.Namespace, **settings: Any) -> tuple[Recipe, Method]:
    """Return the recipe with ``settings`` and its method over a new network."""
    is_mlp = args.network == "mlp"
    size: dict[str, Any] = {"precision": args.precision}
    size |= {"network.hidden": [args.width] * 3} if is_mlp else {"network.width": args.width}
    recipe = load_recipe(args.recipe, "mnist" if is_mlp else "cifar10", {**size, **settings})
    device = torch.device(getattr(args, "device", "cpu"))
    streams = Streams(0, device)
    mode = MODES[args.mode]
    affine = (1 / 255, -0.4 if recipe.preprocess == "global" else 0.0)  # of the size of MNIST's
    network = build_network(
        recipe.network, recipe.deployed_mode(mode), streams, image_shape(args), affine
    ).to(device)
    return recipe, build_method(recipe, mode, network, streams)
