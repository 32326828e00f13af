"""Facts of one layer's weights: a histogram, shares of signs, and how many filters are alike."""

from typing import Any

import torch
from torch import Tensor

from harness.nn.layers import Conv3x3, WeightedLayer

BINS = 40
TAPS = 9
ALL_ONES = 2**TAPS - 1


def layer_facts(
    layer: WeightedLayer, first: bool, *, clipped: bool = True, parameters: bool = False
) -> dict[str, Any]:
    """Return what ``inspect.json`` says of a layer.

    Latent weights of a binary layer are counted in 40 bins over [-1, 1] (over [-m, m] where a run
    without clipping let one grow to m), real ones over [-m, m] with m their greatest magnitude.
    ``parameters`` says that the layer holds expectation backpropagation's h: the means ``tanh h``
    are counted. ``clipped_pct`` is the share at or beyond -1 and +1; None where the run does not
    clip (``clipped`` false) or the layer is real.
    The first layer's filters are listed where it is a convolution (paper, Figure 2).
    """
    weight = layer.weight.detach().float().cpu()
    weight = weight.tanh() if parameters else weight
    greatest = float(weight.abs().max())
    bound = max(1.0, greatest) if layer.is_binary else greatest or 1.0
    facts: dict[str, Any] = {
        "kind": "conv" if isinstance(layer, Conv3x3) else "linear",
        "binary": layer.is_binary,
        "outputs": weight.shape[0],
        "fan_in": layer.fan_in,
        "weights": weight.numel(),
        "plus_pct": _percent(weight >= 0),
        "clipped_pct": _percent(weight.abs() >= 1) if layer.is_binary and clipped else None,
        "bound": bound,
        "histogram": torch.histc(weight, BINS, -bound, bound).long().tolist(),
    }
    if isinstance(layer, Conv3x3):
        codes = filter_codes(weight)
        facts["filters"] = filter_counts(codes)
        if first:
            facts["patterns"] = codes.tolist()
    return facts


def _percent(where: Tensor) -> float:
    return round(100 * int(where.sum()) / where.numel(), 4)


def filter_codes(weight: Tensor) -> Tensor:
    """Return each 3x3 filter's signs as an integer below 512: [N, C, 3, 3] to [N, C].

    Bit i is tap i in reading order; 1 stands for +1.
    """
    powers = 2 ** torch.arange(TAPS)
    return ((weight.flatten(2) >= 0).long() * powers).sum(2)


def filter_counts(codes: Tensor) -> dict[str, int]:
    """Count the 2-D filters [N, C] of a layer, and the different ones among them.

    ``distinct``: in the whole layer, at most 512. ``per_input``: for each input map the
    different filters that it meets, summed over the maps; a result of one can be used again by
    all outputs that share it, so this many 2-D convolutions remain of all (paper, section 3.2).
    ``_up_to_sign``: a filter and its inverse count as one, for one's result is minus the other's.
    """
    unsigned = torch.minimum(codes, ALL_ONES - codes)
    maps = torch.arange(codes.shape[1]) * (ALL_ONES + 1)
    return {
        "total": codes.numel(),
        "distinct": len(torch.unique(codes)),
        "distinct_up_to_sign": len(torch.unique(unsigned)),
        "per_input": len(torch.unique(codes + maps)),
        "per_input_up_to_sign": len(torch.unique(unsigned + maps)),
    }
