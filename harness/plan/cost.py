"""From throughput to hours and from a network to bytes."""

from dataclasses import dataclass

from harness.nn.costs import layer_costs
from harness.plan.calibrate import Throughput
from harness.preset import Job
from harness.spec import Recipe, get_mode

# (training, validation, test) images; splits.py says how they come about.
IMAGES = {
    ("mnist", "official"): (50_000, 10_000, 10_000),
    ("cifar10", "official"): (45_000, 5_000, 10_000),
    ("svhn", "official"): (598_388, 6_000, 26_032),
    ("mnist", "standin"): (6_667, 1_333, 2_000),
    ("cifar10", "standin"): (7_200, 800, 2_000),
    ("svhn", "standin"): (7_400, 600, 2_000),
}
# Forward, backward by the input and backward by the weights are alike; evaluation has the first.
FORWARD_SHARE = 1 / 3
# Python, torch, the data and the report of a run's other stages, measured on 2 cores at 6 s.
JOB_SECONDS = 6.0
LINE_BYTES = 300  # of metrics.jsonl, an epoch


@dataclass(frozen=True)
class Cost:
    """What one run takes: hours of its threads, bytes kept, bytes while it trains."""

    hours: float
    kept_bytes: int
    working_bytes: int


def cost_of(job: Job, recipe: Recipe, source: str, throughput: Throughput) -> Cost:
    """Return a run's cost.

    Hours: each epoch trains on the training images and evaluates validation and test, the test
    set at every new best, counted as always. Kept: best weights as float32 with biases and batch
    norm, the packed model, the metrics. Working: a checkpoint of weights, two moments and the best
    weights beside them.
    """
    train, valid, test = IMAGES[recipe.dataset, source]
    images = train + FORWARD_SHARE * (valid + test)
    seconds = recipe.epochs * images / throughput.images_per_s + JOB_SECONDS
    costs = layer_costs(recipe.network, get_mode(job.mode), recipe.dataset)
    weights = sum(layer.weights for layer in costs)
    units = sum(layer.outputs for layer in costs)
    state = 4 * (weights + 5 * units)  # bias, gamma, beta and two running statistics a unit
    packed = sum(layer.weight_memory_bits for layer in costs) // 8 if job.is_bnn else 0
    kept = state + packed + LINE_BYTES * recipe.epochs
    return Cost(seconds / 3600, kept, 4 * state)
