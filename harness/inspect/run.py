"""From a run's best weights and the test images to ``inspect.json``, for runs of every mode."""

from typing import Any

import torch
from torch import Tensor

from harness.deploy.export import identity
from harness.deploy.trained import TrainedRun
from harness.files import write_json
from harness.inspect.outputs import calibration, confusion
from harness.inspect.weights import layer_facts
from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, Block
from harness.provenance import provenance
from harness.spec import Recipe

INSPECT, INSPECT_SCHEMA = "inspect.json", 1


def inspect_run(trained: TrainedRun) -> dict[str, Any]:
    """Write ``inspect.json`` beside a run's weights, and return it.

    A run that failed gives a record of status ``skipped`` with the reason.

    Raises:
        HarnessError: other data than the run's, damaged weights.
    """
    run = trained.run
    record: dict[str, Any] = {"schema": INSPECT_SCHEMA, "status": "done", "reason": None}
    record |= identity(run)
    if run["status"] == "failed":
        record |= {"status": "skipped", "reason": f"the run failed: {run['failure']['reason']}"}
    else:
        labels = torch.from_numpy(trained.dataset.test.labels).long()
        record |= _predictions(trained.scores, labels)
        record["layers"] = _layers(trained.network, trained.recipe)
    record["provenance"] = provenance()
    write_json(trained.folder / INSPECT, record)
    return record


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
