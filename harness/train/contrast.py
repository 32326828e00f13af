"""Global, then local contrast normalisation of a batch on the device, as harness.data.contrast."""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.contrast import GCN_BIAS, LCN_FLOOR, LCN_TAPS, gaussian_kernel


class Contrast:
    """Both normalisations of uint8 [n, c, h, w], divided by ``largest``, float32 []."""

    def __init__(self, largest: Tensor, device: torch.device) -> None:
        taps = torch.as_tensor(gaussian_kernel(), dtype=torch.float32, device=device)
        self._largest = largest
        self._rows, self._columns = taps.view(1, 1, 1, -1), taps.view(1, 1, -1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 of the shape of ``pixels``."""
        x = pixels.float().div_(255)
        centred = x - x.mean((1, 2, 3), keepdim=True)
        power = centred.square().mean((1, 2, 3), keepdim=True)
        x = centred / torch.sqrt(GCN_BIAS + power)
        n, c, h, w = x.shape
        blurred = F.conv2d(x.reshape(n * c, 1, h, w), self._rows, padding=(0, LCN_TAPS // 2))
        blurred = F.conv2d(blurred, self._columns, padding=(LCN_TAPS // 2, 0))
        centred = x - blurred.view(n, c, h, w)
        deviation = centred.std((2, 3), correction=1, keepdim=True)
        return centred / (deviation + LCN_FLOOR) / self._largest
