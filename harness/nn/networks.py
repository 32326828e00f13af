"""The paper's MLP and ConvNet(w), as a list of blocks (paper, section 2)."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.names import CLASSES
from harness.nn import conv_block, fused, gpu, linear_block, norm_sign, real_inputs, signed
from harness.nn.batch_norm import Averages, BatchNorm, average_in
from harness.nn.binarize import binarize_activation
from harness.nn.layers import Conv3x3, Linear, Use, WeightedLayer
from harness.nn.norm import build_norm
from harness.nn.streams import Streams
from harness.spec import Mode, NetworkSpec


class Block(nn.Module):
    """Dropout, product, 2x2 max-pool, bias, batch norm, activation: one layer of the network.

    ``activation``: ``sign`` (deterministic), ``stoch`` (stochastic at train time), ``relu``,
    ``tanh`` or ``none`` (the output layer). ``scale`` and ``offset`` turn a product with odd
    integers ``o = 2u - 255`` into the product with ``x = scale * o + offset``. ``pool_last`` puts
    the pooling after the activation; among tied maxima the first takes the gradient. ``gated`` is
    the straight-through estimator's gate. ``binary_input`` says that the block's inputs are ±1
    (before dropout), ``takes_integers`` that they are integers up to 255; ``by_signs`` that their
    products with ±1 weights go by packed kernels; ``fast`` that a step need not keep the bits of
    the library's batch norm and products of reals, ``packs`` that the next block takes its outputs'
    signs packed, ``halves`` that on a GPU it takes them in float16, ``words`` that it can take
    their bits alone.
    """

    def __init__(
        self,
        layer: WeightedLayer,
        norm: nn.Module,
        activation: str,
        streams: Streams,
        pool: bool = False,
        dropout: float = 0.0,
        pool_last: bool = False,
        gated: bool = True,
        binary_input: bool = False,
    ) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.pool_last, self.gated = pool and pool_last, gated
        self.activation, self.pool, self.dropout = activation, pool, dropout
        self.scale, self.offset = 1.0, 0.0
        self.binary_input = binary_input
        self.takes_integers = binary_input
        self.by_signs = self.fast = False
        self.packs = self.halves = self.words = False
        self._streams = streams

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4 and isinstance(self.layer, Linear):
            x = x.flatten(1)
        if linear_block.takes(self, x):
            return linear_block.forward(self, x)
        if conv_block.takes(self, x):
            return conv_block.forward(self, x)
        if conv_block.evaluates(self, x):
            return conv_block.evaluate(self, x)
        if self.dropout and self.training:
            x = self._drop(x)
        row_sums, pool = None, self.pool and not self.pool_last
        by_signs = self.by_signs and self.layer.binarization != "real"
        if by_signs and not (self.offset and gpu.holds(x)):
            rate = self.dropout if self.training else 0.0
            if self.offset:  # an image of ones: its dots are the weights' sums
                x = F.pad(x, (0, 0, 0, 1), value=1.0)
            dots = self.layer.signed_product(x, rate, not self.binary_input, pool)
            if self.offset:
                dots, row_sums = dots[:-1], dots[-1]
        elif real_inputs.takes(self, x):
            dots = real_inputs.product(x, self.layer, pool)
        else:
            weight = self.layer.used_weight()
            integers = self.takes_integers and self.layer.binarization != "real"
            use = Use(integers, self.fast and self.training, shared=bool(self.offset))
            dots = self.layer.product(x, weight, use)
            row_sums = weight.flatten(1).sum(1) if self.offset else None
            dots = F.max_pool2d(dots, 2) if pool else dots
        y = self._norm_and_activate(dots, row_sums)
        return F.max_pool2d(y, 2) if self.pool_last else y

    def pre_norm(self, dots: Tensor, channel_dim: int, row_sums: Tensor | None) -> Tensor:
        """Return ``scale * dots + offset * row_sums + bias``, channels along ``channel_dim``.

        Monotone in ``dots`` in float32, each channel for itself.
        """
        shape = [-1 if i == channel_dim % dots.dim() else 1 for i in range(dots.dim())]
        if self.scale != 1.0:
            dots = dots * self.scale
        return dots + self.shifted_bias(row_sums).view(shape)

    def shifted_bias(self, row_sums: Tensor | None) -> Tensor:
        """Return ``offset * row_sums + bias``: what the products' inputs have in common, too."""
        bias: Tensor = self.layer.bias
        return bias if row_sums is None else bias + self.offset * row_sums

    def _norm_and_activate(self, dots: Tensor, row_sums: Tensor | None) -> Tensor:
        if not norm_sign.takes(self, dots):
            return self._activate(self.norm(self.pre_norm(dots, 1, row_sums)))
        draws = self.draws("activations", dots) if self.activation == "stoch" else None
        norm = cast(BatchNorm, self.norm)
        bias = self.shifted_bias(row_sums)
        form, gated, packed = norm_sign.FORMS[self.activation], self.gated, self.packs
        return norm_sign.norm_sign(
            dots, bias, self.scale, norm, draws, gated, form=form, packed=packed
        )

    @torch.no_grad()
    def norm_from_dots(self, dots: Tensor, channel_dim: int = -1) -> Tensor:
        """Return the test-time value whose sign is taken, from the integer products ``dots``.

        The same float32 operations as :meth:`forward` in evaluation, so an integer threshold
        found on this function agrees with the training network bit for bit.
        """
        row_sums = None
        if self.offset:
            weight = self.layer.used_weight()
            row_sums = weight.flatten(1).sum(1)
        return self.norm.evaluate(  # type: ignore[operator, no-any-return]
            self.pre_norm(dots, channel_dim, row_sums), channel_dim
        )

    def draws(self, stream: str, like: Tensor) -> Tensor:
        """Return numbers uniform on [0, 1) from a stream of the run, in the shape of ``like``."""
        return fused.draws(like, self._streams[stream])

    def _drop(self, x: Tensor) -> Tensor:
        keep = fused.draws(x, self._streams["dropout"], 1 - self.dropout).div_(1 - self.dropout)
        bits_alone = self.by_signs and self.binary_input and not gpu.holds(x)
        return signed.drop(x, keep) if bits_alone else x * keep

    def _activate(self, y: Tensor) -> Tensor:
        if self.activation == "none":
            return y
        if self.activation in ("relu", "tanh"):
            return F.relu(y) if self.activation == "relu" else torch.tanh(y)
        stochastic = self.activation == "stoch" and self.training
        draws = self._streams["activations"] if stochastic else None
        return binarize_activation(y, draws, self.gated)


class BinaryNetwork(nn.Module):
    """Blocks in order, from odd integers (``integer_input``) or preprocessed reals to [B, 10].

    The first layer takes 8-bit pixels as odd integers ``2u - 255`` where preprocessing is affine
    in the pixel and zero padding stays exact; otherwise the preprocessed real values.
    """

    def __init__(self, blocks: Sequence[Block], integer_input: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.integer_input = integer_input
        blocks[0].takes_integers = integer_input

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def binary_layers(self) -> list[WeightedLayer]:
        """Return the layers whose weights training binarizes."""
        return [b.layer for b in self.blocks if b.layer.is_binary]  # type: ignore[union-attr, misc]

    def multiply_by_signs(self) -> None:
        """Take products by signs by packed kernels from now on, and batch norms by fused ones."""
        blocks = cast(list[Block], list(self.blocks))
        for block in blocks:
            linear = isinstance(block.layer, Linear)
            takes_pixels = block is blocks[0] and self.integer_input and linear
            block.by_signs = block.layer.is_binary and (block.binary_input or takes_pixels)
        for block in blocks:
            block.fast = True
            if conv_block.fits(block):
                block.layer.signs_dtype = torch.float16
        for block, after in pairwise(blocks):
            flattened = type(block.layer) is not type(after.layer)
            block.packs = after.by_signs and not (block.pool_last or flattened)
            block.halves = block.packs and conv_block.fits(after)
            block.words = block.halves and after.layer.train_weights == "det"

    def lay_channels_last(self) -> None:
        """Lay the filters out in memory as the convolutions of a GPU want them, to copy none."""
        for layer in (block.layer for block in cast(list[Block], list(self.blocks))):
            if not isinstance(layer, Linear):
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)

    def refresh_signs(self) -> None:
        """Bring the signs that a GPU keeps beside latent weights up to date with them."""
        for block in cast(list[Block], list(self.blocks)):
            layer = block.layer
            kept = block.by_signs or conv_block.fits(block) or linear_block.fits(block)
            if kept and layer.binarization == "det" and gpu.takes(layer.weight):
                layer.kept_signs()
                if conv_block.takes_words(block):
                    layer.kept_filters()

    def average_later(self) -> None:
        """Let batch norms keep their batch's statistics for :meth:`average` from now on."""
        self._waiting: dict[float, Averages] = {}
        for block in cast(list[Block], list(self.blocks)):
            if isinstance(block.norm, BatchNorm):
                block.norm.waiting = self._waiting

    def average(self) -> None:
        """Take the running averages that wait, in one launch on a GPU."""
        for momentum, pairs in self._waiting.items():
            average_in(pairs, momentum)
        self._waiting.clear()

    @torch.no_grad()
    def clip_latent(self) -> None:
        """Clip the latent weights of the binary layers to [-1, 1] (paper, Algorithm 1)."""
        for layer in self.binary_layers():
            layer.weight.clamp_(-1, 1)


class _Builder:
    def __init__(self, spec: NetworkSpec, mode: Mode, streams: Streams) -> None:
        self.spec, self.mode, self.streams = spec, mode, streams
        units = {"real": spec.real_activation, "det": "sign", "stoch": "stoch"}
        self.activation = units[mode.activations]
        self.blocks: list[Block] = []

    def add(self, shape: tuple[int, ...], pool: bool = False, dropout: float = 0.0) -> None:
        last = shape[0] == 0
        first = not self.blocks
        treatment = self.spec.last_layer if last else self.spec.first_layer if first else "mode"
        train, test = self.mode.weights, self.mode.test_weights
        if treatment == "real":
            train, test = "real", "real"
        shape = (CLASSES, *shape[1:]) if last else shape
        kind = Linear if len(shape) == 2 else Conv3x3
        layer = kind(shape, train, test, self.streams["init"], self.streams["weights"])
        named = self.spec.output_norm if last else self.spec.norm
        norm = build_norm(named, shape[0], layer.fan_in)
        if named.kind == "fan-in" and not layer.is_binary:
            with torch.no_grad():  # from Glorot's variance 2/(fan_in + fan_out) to 1
                layer.weight.mul_(math.sqrt((layer.fan_in + layer.fan_out) / 2))
        activation = "none" if last else self.activation
        pool_last, gated = self.spec.pool == "after-sign", self.spec.ste == "gated"
        binary_input = not first and self.mode.activations != "real"
        self.blocks.append(
            Block(
                layer, norm, activation, self.streams, pool, dropout, pool_last, gated, binary_input
            )
        )


def _mlp(builder: _Builder, image_shape: tuple[int, int, int]) -> None:
    spec = builder.spec
    width, dropout = math.prod(image_shape), spec.input_dropout
    for hidden in spec.hidden:
        builder.add((hidden, width), dropout=dropout)
        width, dropout = hidden, spec.hidden_dropout
    builder.add((0, width), dropout=dropout)


def _convnet(builder: _Builder, image_shape: tuple[int, int, int]) -> None:
    channels, height, side = image_shape
    if height != side or side % 8:
        raise ValueError(f"ConvNet needs square images, sides a multiple of 8; found {image_shape}")
    w = builder.spec.width
    for i, maps in enumerate((w, w, 2 * w, 2 * w, 4 * w, 4 * w)):
        builder.add((maps, channels, 3, 3), pool=i % 2 == 1)
        channels = maps
    width = channels * (side // 8) ** 2
    for fc in (builder.spec.fc, builder.spec.fc):
        builder.add((fc, width))
        width = fc
    builder.add((0, width))


def build_network(
    spec: NetworkSpec,
    mode: Mode,
    streams: Streams,
    image_shape: tuple[int, int, int],
    affine: tuple[float, float] | None,
) -> BinaryNetwork:
    """Build the network of ``spec`` in ``mode`` for images of shape ``(c, h, w)``.

    ``affine`` is ``(scale, offset)`` where the preprocessing is ``x = scale * (2u - 255) +
    offset``, else None. An offset with zero padding or input dropout has no integer form: the
    first layer then takes real inputs.
    """
    builder = _Builder(spec, mode, streams)
    {"mlp": _mlp, "convnet": _convnet}[spec.kind](builder, image_shape)
    padded_or_dropped = spec.kind == "convnet" or spec.input_dropout > 0
    integer = affine is not None and not (affine[1] and padded_or_dropped)
    if integer and affine is not None:
        builder.blocks[0].scale, builder.blocks[0].offset = affine
    return BinaryNetwork(builder.blocks, integer)
