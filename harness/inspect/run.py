"""From a run's best weights and the test images to ``inspect.json``, for runs of every mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.dataset import load_dataset
from harness.deploy.evaluate import check_data, training_scores
from harness.deploy.export import identity, read_run, rebuild, run_recipe
from harness.files import write_json
from harness.inspect.outputs import calibration, confusion
from harness.inspect.weights import layer_facts
from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, Block
from harness.provenance import provenance
from harness.spec import Recipe
from harness.train.checkpoint import BEST, load_weights
from harness.train.inputs import image_shape

INSPECT, INSPECT_SCHEMA = "inspect.json", 1


def inspect_run(folder: Path, data: Path, allow_running: bool = False) -> dict[str, Any]:
    """Write ``inspect.json`` beside a run's weights, and return it.

    A run that failed gives a record of status ``skipped`` with the reason.

    Raises:
        HarnessError: no run, one that still trains, other data than the run's, damaged weights.
    """
    run = read_run(folder, allow_running)
    record: dict[str, Any] = {"schema": INSPECT_SCHEMA, "status": "done", "reason": None}
    record |= identity(run)
    if run["status"] == "failed":
        record |= {"status": "skipped", "reason": f"the run failed: {run['failure']['reason']}"}
    else:
        record |= _facts(folder, run, data)
    record["provenance"] = provenance()
    write_json(folder / INSPECT, record)
    return record


def _facts(folder: Path, run: Mapping[str, Any], data: Path) -> dict[str, Any]:
    dataset = load_dataset(run["dataset"], data)
    check_data(run, dataset, data)
    tensors = load_weights(folder / BEST)
    network = rebuild(run, tensors, image_shape(dataset))
    scores = training_scores(run, network, tensors, dataset)
    labels = torch.from_numpy(dataset.test.labels).long()
    return {
        **_predictions(scores, labels),
        "layers": _layers(network, run_recipe(run)),
    }


def _predictions(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    wrong = int((scores.argmax(1) != labels).sum())
    return {
        "images": len(labels),
        "test_errors": wrong,
        "test_error_pct": 100 * wrong / len(labels),
        "test_loss": squared_hinge(scores, labels).item(),
        "confusion": confusion(scores, labels),
        "calibration": calibration(scores, labels),
    }


def _layers(network: BinaryNetwork, recipe: Recipe) -> list[dict[str, Any]]:
    # Back-propagation alone has latent weights to clip: bitwise and ternary runs save quantized
    # ones, EBP parameters that grow without bound.
    kind, found = recipe.method.kind, []
    clipped = kind == "backprop" and recipe.optimizer.clip
    for i, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        facts = layer_facts(block.layer, i == 0, clipped=clipped, parameters=kind == "ebp")
        found.append({"layer": i + 1, **facts})
    return found
