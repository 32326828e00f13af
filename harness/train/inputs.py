"""Images resident on the device, in the form the network's first layer takes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.data.dataset import Dataset
from harness.data.formats import Images
from harness.data.preprocess import Preprocessor


def network_input(pixels: Tensor) -> Tensor:
    """Return float32 odd integers ``2u - 255`` for uint8 pixels; reals pass through."""
    return pixels.float().mul_(2).sub_(255) if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class Resident:
    """One split on the device: ``pixels`` [n, c, h, w], uint8 or preprocessed float32; labels."""

    pixels: Tensor
    labels: Tensor

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the network's input and the labels of some images."""
        return network_input(self.pixels[indices]), self.labels[indices]

    def __len__(self) -> int:
        return len(self.labels)


def resident(
    images: Images, preprocessor: Preprocessor, integer_input: bool, device: torch.device
) -> Resident:
    """Move one split to ``device``: raw pixels for an integer first layer, else preprocessed."""
    pixels = images.pixels if integer_input else preprocessor.apply(images.pixels)
    labels = torch.from_numpy(np.ascontiguousarray(images.labels)).long()
    return Resident(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), labels.to(device))


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Return (channels, height, width) of the dataset's images."""
    c, h, w = dataset.train.pixels.shape[1:]
    return int(c), int(h), int(w)
