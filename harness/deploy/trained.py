"""A run that ended, as the stages after training take it: read once, however many ask."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from harness.data.dataset import Dataset, load_dataset
from harness.data.preprocess import from_state
from harness.deploy.export import read_run, rebuild, run_recipe
from harness.deploy.modelfile import below
from harness.errors import HarnessError
from harness.nn.networks import BinaryNetwork
from harness.train.checkpoint import BEST, read_weights
from harness.train.evaluation import predict_scores
from harness.train.inputs import image_shape, resident


class TrainedRun:
    """A run's record, its data, its network with the best weights, and the network's scores.

    All but the record comes when it is first asked for, and stays: evaluating on several devices
    and inspecting take one pass over the test images.

    Raises:
        HarnessError: no run; one that still trains, without ``allow_running``; later: other data
            than the run's, damaged weights.
    """

    def __init__(self, folder: Path, data: Path, allow_running: bool = False) -> None:
        self.folder, self.data = folder, data
        self.run = read_run(folder, allow_running)
        self.recipe = run_recipe(self.run)

    @cached_property
    def dataset(self) -> Dataset:
        """The run's dataset, the one that it was trained on."""
        dataset = load_dataset(self.run["dataset"], self.data)
        wanted, found = self.run["data"]["digest"], dataset.manifest["digest"]
        if found != wanted:
            raise HarnessError(
                f"{self.data} holds the {dataset.source} {dataset.name} of digest {found[:16]}, the"
                f" run was trained on the {self.run['source']} one of digest {wanted[:16]}; give "
                "its data folder"
            )
        return dataset

    @cached_property
    def _weights(self) -> tuple[str, dict[str, Tensor]]:
        return read_weights(self.folder / BEST, self.run.get("best_sha256"))

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the best weights, as they were read."""
        return self._weights[0]

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return self._weights[1]

    @cached_property
    def network(self) -> BinaryNetwork:
        """The training network with the best weights, in evaluation state."""
        return rebuild(self.run, self._tensors, image_shape(self.dataset))

    @cached_property
    def scores(self) -> Tensor:
        """The training network's scores [n, 10] on the test images, on the CPU."""
        state = {k: v.numpy() for k, v in below(self._tensors, "preprocess.").items()}
        preprocessor = from_state(self.recipe.preprocess, state)
        cpu = torch.device("cpu")
        images = resident(self.dataset.test, preprocessor, self.network.integer_input, cpu)
        return predict_scores(self.network, images)
