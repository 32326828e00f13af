"""The first 20 losses of two recipes on a synthetic problem, committed: a change must be meant."""

import numpy as np
import pytest
import torch

from harness.nn.loss import squared_hinge
from harness.nn.networks import build_network
from harness.nn.optim import build_optimizer
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe

# Sums in another order, as of another BLAS, move these losses by 4e-7 (measured by shaking the
# first weights by 1e-7). A unit that flips, or a draw, moves one by 0.04.
GOLDEN_TOLERANCE = 1e-5
BATCH = 64
# fmt: off
GOLDEN = {
    ("theano", "bnn-det"): [
        1.839303, 1.858302, 1.755598, 1.738775, 1.757976, 1.641890, 1.607756, 1.534203, 1.557896,
        1.520318, 1.485209, 1.481105, 1.467498, 1.324598, 1.384307, 1.371565, 1.328370, 1.318155,
        1.319898, 1.284359,
    ],
    ("torch7", "bnn-stoch"): [
        1.874873, 1.808052, 1.785023, 1.751792, 1.784438, 1.624137, 1.625619, 1.698502, 1.665256,
        1.561332, 1.590523, 1.633735, 1.579594, 1.534393, 1.624905, 1.422561, 1.508080, 1.457124,
        1.523199, 1.489868,
    ],
}
# fmt: on


def first_losses(recipe_name: str, mode: str, count: int) -> list[float]:
    """Train on noisy copies of ten random 8x8 images, drawn by NumPy."""
    recipe = load_recipe(recipe_name, "mnist", {"network.hidden": [48, 40]})
    affine = (1 / 255, 0.0)
    network = build_network(recipe.network, MODES[mode], Streams(5), (1, 8, 8), affine)
    optimizer = build_optimizer(network, recipe.optimizer, recipe.schedule.rate(0, recipe.epochs))
    rng = np.random.default_rng(12)
    prototypes = rng.integers(0, 256, (10, 1, 8, 8))
    losses = []
    for _ in range(count):
        labels = rng.integers(0, 10, BATCH)
        noise = rng.integers(-60, 61, (BATCH, 1, 8, 8))
        pixels = np.clip(prototypes[labels] + noise, 0, 255)
        scores = network(torch.from_numpy(2.0 * pixels - 255).float())
        loss = squared_hinge(scores, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.clip_latent()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("recipe", "mode"), GOLDEN)
def test_first_losses_are_the_committed_ones(recipe: str, mode: str) -> None:
    expected = GOLDEN[recipe, mode]
    assert first_losses(recipe, mode, len(expected)) == pytest.approx(
        expected, rel=0, abs=GOLDEN_TOLERANCE
    )
