"""Images resident on the device, in the form the network's first layer takes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.dataset import Dataset, load_dataset
from harness.data.formats import Images
from harness.data.preprocess import Preprocessor
from harness.nn import gpu

# A split whose preprocessed float32 images take more stays uint8, preprocessed batch by batch:
# CIFAR-10's 45,000 are 0.55 GB, SVHN's 598,388 would be 7.4 GB.
HELD_BYTES = 2**30
# What a batch is preprocessed by on its device; a GPU holds splits of other kinds whole, as a
# captured step cannot ask the host.
ON_DEVICE = ("zca", "gcn-lcn")
Transform = Callable[[Tensor], Tensor]


def network_input(pixels: Tensor) -> Tensor:
    """Return float32 odd integers ``2u - 255`` for uint8 pixels; reals pass through."""
    return pixels.float().mul_(2).sub_(255) if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class Resident:
    """One split on the device: ``pixels`` [n, c, h, w], uint8 or preprocessed float32; labels.

    ``transform`` preprocesses a batch of uint8 pixels where the split is too large to be held so.
    """

    pixels: Tensor
    labels: Tensor
    transform: Transform = network_input

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the network's input and the labels of some images."""
        if isinstance(indices, Tensor) and self._odd_integers and gpu.runs_on(self.pixels):
            from kernels.triton.batch import fetch

            return fetch(self.pixels, self.labels, indices)
        return self.transform(self.pixels[indices]), self.labels[indices]

    @property
    def _odd_integers(self) -> bool:
        return self.pixels.dtype == torch.uint8 and self.transform is network_input

    def __len__(self) -> int:
        return len(self.labels)


def resident(
    images: Images, preprocessor: Preprocessor, integer_input: bool, device: torch.device
) -> Resident:
    """Move one split to ``device``: raw pixels for an integer first layer, else preprocessed."""
    labels = torch.from_numpy(np.ascontiguousarray(images.labels)).long().to(device)
    large = not integer_input and 4 * images.pixels.size > HELD_BYTES
    by_batch = large and (device.type == "cpu" or preprocessor.kind in ON_DEVICE)
    raw = integer_input or by_batch
    pixels = images.pixels if raw else preprocessor.apply(images.pixels)
    on_device = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    transform = batch_transform(preprocessor, device) if by_batch else network_input
    return Resident(on_device, labels, transform)


class Source:
    """The data that runs train on: what several of them read is on the device once."""

    def __init__(self, data: Path, device: torch.device) -> None:
        self.data, self.device = data, device
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[tuple[str, str, bool], dict[str, Resident]] = {}

    def dataset(self, name: str) -> Dataset:
        """Return the dataset in the data folder.

        Raises:
            HarnessError: it is not there, or damaged.
        """
        if name not in self._datasets:
            self._datasets[name] = load_dataset(name, self.data)
        return self._datasets[name]

    def splits(
        self, name: str, preprocessor: Preprocessor, integer_input: bool
    ) -> dict[str, Resident]:
        """Return train, valid and test on the device; ``preprocessor`` was fitted on ``train``."""
        key = name, preprocessor.kind, integer_input
        if key not in self._splits:
            dataset = self.dataset(name)
            self._splits[key] = {
                part: resident(getattr(dataset, part), preprocessor, integer_input, self.device)
                for part in ("train", "valid", "test")
            }
        return self._splits[key]


def batch_transform(preprocessor: Preprocessor, device: torch.device) -> Transform:
    """Return what preprocesses a batch of uint8 [n, c, h, w] on ``device``.

    Equal to ``preprocessor.apply`` but for the rounding of sums in another order.
    """
    state = {
        name: torch.as_tensor(array, dtype=torch.float32, device=device)
        for name, array in preprocessor.state().items()
    }
    if preprocessor.kind == "zca":
        return lambda pixels: _whitened(pixels, state["mean"], state["matrix"])
    if preprocessor.kind == "gcn-lcn":
        from harness.train.contrast import Contrast

        return Contrast(state["largest"], device)
    return lambda pixels: torch.from_numpy(preprocessor.apply(pixels.cpu().numpy())).to(device)


def _whitened(pixels: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    rows = pixels.flatten(1).float().div_(255).sub_(mean)
    return (rows @ matrix).view(pixels.shape)


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Return (channels, height, width) of the dataset's images."""
    c, h, w = dataset.train.pixels.shape[1:]
    return int(c), int(h), int(w)
