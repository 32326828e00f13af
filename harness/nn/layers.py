"""Linear and 3x3 convolution layers with real or binary weights (paper, section 1.1)."""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn import fused, gpu, signed, tf32
from harness.nn.attached import Attachment, attachment
from harness.nn.binarize import binarize_weight, stochastic_sign
from harness.spec import Binarization
from kernels.packing import pack_rows

if TYPE_CHECKING:
    from kernels.triton.binary_maps import Filters


class Use(NamedTuple):
    """What a step's product is of, and how it may be taken.

    Attributes:
        integers: up to 255 by ±1, exactly.
        rounded: on a GPU with TF32's 11 bits of an operand, in the gradients too.
        shared: the weight has another use in the step.
    """

    integers: bool = False
    rounded: bool = False
    shared: bool = False


PLAIN = Use()


class WeightedLayer(nn.Module):
    """A linear map ``x -> W x + b`` whose weights are real or binarized from latent ones.

    Latent weights start uniform in [-1, 1], real ones Glorot uniform; biases start at 0.
    ``fan_in`` and ``fan_out`` count the filter area of convolutions.
    """

    signs_dtype: torch.dtype  # of :meth:`kept_signs`: what its products take

    def __init__(
        self,
        shape: tuple[int, ...],
        train_weights: Binarization,
        test_weights: Binarization,
        init: torch.Generator,
        draws: torch.Generator | None,
    ) -> None:
        super().__init__()
        area = math.prod(shape[2:])
        self.fan_in, self.fan_out = shape[1] * area, shape[0] * area
        self.train_weights, self.test_weights = train_weights, test_weights
        self._draws = draws
        self._gradient: Tensor | None = None
        bound = 1.0 if self.is_binary else math.sqrt(6 / (self.fan_in + self.fan_out))
        weight = torch.empty(shape).uniform_(-bound, bound, generator=init)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    @property
    def is_binary(self) -> bool:
        """True where training binarizes the weights, so that latent ones are clipped."""
        return self.train_weights != "real"

    @property
    def glorot_scale(self) -> float:
        """Learning-rate scale ``1 / sqrt(1.5 / (fan_in + fan_out))`` (paper, section 2)."""
        return 1 / math.sqrt(1.5 / (self.fan_in + self.fan_out))

    def used_weight(self) -> Tensor:
        """Return the weights that the forward pass multiplies by, in this training state."""
        attachment(self.weight).wait()
        if self.binarization == "real":
            return self.weight
        draws = self._draws if self.binarization == "stoch" else None
        return binarize_weight(self.weight, draws)

    @property
    def binarization(self) -> Binarization:
        """How :meth:`used_weight` takes the latent weights, in this training state."""
        return self.train_weights if self.training else self.test_weights

    @torch.no_grad()
    def signed_weight(self) -> Tensor:
        """Return a tensor of the signs that :meth:`used_weight` gives: latent weights, or draws."""
        attachment(self.weight).wait()
        if self.binarization == "stoch" and self._draws is not None:
            return stochastic_sign(self.weight, self._draws)
        return self.weight

    @torch.no_grad()
    def kept_signs(self) -> Tensor:
        """Return the signs that :meth:`used_weight` gives, in ``signs_dtype``, on a GPU.

        Kept from step to step where training draws none: the optimizer writes them with weights.
        """
        attachment(self.weight).wait()
        from kernels.triton.update import sign_

        if self.binarization == "stoch" and self._draws is not None:
            drawn = torch.empty_like(self.weight, dtype=self.signs_dtype)
            sign_(self.weight, drawn, fused.draws(self.weight, self._draws))
            return drawn
        kept = Attachment() if self.train_weights == "stoch" else attachment(self.weight)
        if kept.signs is None:
            kept.signs = torch.empty_like(self.weight, dtype=self.signs_dtype)
        if kept.version != self.weight._version:
            sign_(self.weight, kept.signs)
            kept.version = self.weight._version
        return kept.signs

    @torch.no_grad()
    def kept_filters(self) -> "Filters":
        """Return the packed form of :meth:`kept_signs` of filters, for a GPU.

        Kept like the signs, and as fresh; of weights that training does not draw.
        """
        from kernels.triton.binary_maps import empty_filters, pack_filters_

        kept, signs = attachment(self.weight), self.kept_signs()
        if kept.filters is None:
            kept.filters = empty_filters(len(signs), signs.shape[1])
        if kept.filters_version != kept.version:
            pack_filters_(signs.permute(0, 2, 3, 1), kept.filters)
            kept.filters_version = kept.version
        return kept.filters

    @torch.no_grad()
    def packed_signs(self) -> Tensor:
        """Return the signs of :meth:`signed_weight`, packed int64 [N, ceil(K/64)], on a CPU.

        Kept from step to step where training draws none: the optimizer makes them with weights.
        """
        if self.binarization == "stoch" and self._draws is not None:
            drawn = fused.packed_drawn_signs(self.weight, self._draws)
            return pack_rows(self.signed_weight()).words if drawn is None else drawn
        kept = attachment(self.weight)
        if kept.words is None or kept.words_version != self.weight._version:
            kept.words, kept.words_version = pack_rows(self.weight).words, self.weight._version
        return kept.words

    def gradient_buffer(self) -> Tensor:
        """Return memory for the weights' gradient, the same at each step.

        A new tensor of many megabytes comes from the system page by page, which takes longer than
        filling it.
        """
        if self._gradient is None or self._gradient is self.weight.grad:
            self._gradient = torch.empty_like(self.weight)
        return self._gradient

    def product(self, x: Tensor, weight: Tensor, use: Use = PLAIN) -> Tensor:
        """Return the layer's product without bias."""
        raise NotImplementedError

    def signed_product(
        self, x: Tensor, rate: float, integers: bool = False, pool: bool = False
    ) -> Tensor:
        """Return the product of ±1 inputs and weights: ``harness.nn.signed``, on a GPU ``.tf32``.

        ``rate``: x has gone through dropout, so it is 0 or ``±1 / (1 - rate)``. ``integers``: the
        inputs are odd integers ``2u - 255`` in place of ±1, and take no gradient. ``pool``: the
        product's 2x2 max-pool, of a convolution.
        """
        raise NotImplementedError


class Linear(WeightedLayer):
    """``[B, K] x [N, K] -> [B, N]``."""

    signs_dtype = torch.bfloat16

    def product(self, x: Tensor, weight: Tensor, use: Use = PLAIN) -> Tensor:
        if use.rounded and gpu.runs_on(x):
            return tf32.linear(x, weight, use.shared)
        return F.linear(x, weight)

    def signed_product(
        self, x: Tensor, rate: float, integers: bool = False, pool: bool = False
    ) -> Tensor:
        if pool:
            raise ValueError("only a convolution's products are pooled")
        if gpu.takes(x, self.weight) and not torch.is_grad_enabled():
            return gpu.product(x.to(torch.bfloat16), self.kept_signs().t())
        if x.is_cuda:
            weight = self.used_weight()
            return self.product(x, weight) if integers else tf32.linear(x, weight)
        return signed.integer_linear(x, self, rate) if integers else signed.linear(x, self, rate)


def _channels_last(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    # 1.1 to 1.3 times as fast as NCHW at the ConvNet's sizes on the CPU.
    form = torch.channels_last
    return x.contiguous(memory_format=form), weight.contiguous(memory_format=form)


class Conv3x3(WeightedLayer):
    """``[B, C, H, W] -> [B, N, H, W]`` with 3x3 filters, zero padding of 1."""

    signs_dtype = torch.float32

    def product(self, x: Tensor, weight: Tensor, use: Use = PLAIN) -> Tensor:
        x, weight = _channels_last(x, weight)
        if x.is_cuda and (use.integers or use.rounded):
            return tf32.conv3x3(x, weight, fast=use.rounded, integers=use.integers)
        return F.conv2d(x, weight, padding=1)

    def signed_product(
        self, x: Tensor, rate: float, integers: bool = False, pool: bool = False
    ) -> Tensor:
        if rate or integers:
            raise ValueError("a convolution by signs takes inputs of ±1 alone, without dropout")
        if gpu.takes(x, self.weight):
            x, signs = _channels_last(x, self.kept_signs().float())
            products = tf32.signed_conv3x3(x, self.weight, signs)
        elif x.is_cuda:
            products = tf32.conv3x3(*_channels_last(x, self.used_weight()))
        else:
            return signed.conv3x3(x, self, pool)
        return F.max_pool2d(products, 2) if pool else products
