"""The packed network at run time: words in, words out, one integer product a layer.

Paper, Algorithm 5: the first layer multiplies 8-bit pixels, hidden layers packed activations; the
last layer's exact integers go through batch norm in float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.data.preprocess import from_state
from harness.deploy.modelfile import LayerSpec, Model, below, load_model, unpack_weight
from harness.deploy.pixels import (
    PIXEL_PRODUCTS,
    bits_on_pixels,
    conv_on_pixels,
    linear_on_pixels,
)
from harness.errors import HarnessError
from harness.nn.layers import Conv3x3, Linear
from harness.nn.networks import Block
from harness.nn.norm import build_norm
from harness.nn.streams import Streams
from harness.train.evaluation import EVALUATION_BATCH
from kernels import conv, registry
from kernels.base import Convolution, Kernel
from kernels.packing import WORD_BITS, Packed, pack_rows, pack_threshold

# Bound of the operands and products that a layer holds at once, unpacked to float32.
WORKING_BYTES = 2**28
Dots = Callable[[Tensor], Tensor]


class PackedLayer:
    """One layer: exact dots from a product, then thresholds to bits, or scores."""

    def __init__(self, spec: LayerSpec, tensors: dict[str, Tensor], seed: int) -> None:
        self.spec, self.tensors = spec, tensors
        self.weights = Packed(tensors["words"], spec.k, spec.groups)
        self.block = None if spec.folded else _float_block(spec, tensors, seed)
        self.flips = pack_rows(tensors["flip"][None]).words[0] if spec.folded else None
        if self.flips is not None and spec.pool_last:  # the maximum of bits is their OR
            self.flips = torch.zeros_like(self.flips)

    def working_bytes(self, positions: int) -> int:
        """Return the bytes that one image with ``positions`` outputs a channel may need."""
        rows = positions if self.spec.kind == "conv" else 1
        return rows * (4 * WORD_BITS * self.spec.words + 12 * self.spec.outputs)

    def dots_on_bits(self, kernel: Kernel, height: int, width: int) -> Dots:
        """Return the map of packed activations to int32 dots, [n*h*w, N] or [n, N]."""
        k, groups, device = self.spec.k, self.spec.groups, kernel.device
        weights = Packed(self.weights.words.to(device), k, groups)
        multiply: Dots
        if self.spec.kind == "conv":
            multiply = conv.Conv3x3(kernel, weights, height, width)
        else:
            prepared = kernel.weights(weights)

            def multiply(words: Tensor) -> Tensor:
                operand = kernel.activations(Packed(words.flatten(1), k, groups))
                dots: Tensor = kernel.product(operand, prepared)
                return dots

        return lambda words: multiply(words.to(device)).to("cpu", torch.int32)

    def bits_on_bits(self, kernel: Kernel, height: int, width: int) -> Dots | None:
        """Return the map of packed rows or maps to packed ones in one call, where a kernel has it.

        None for a kernel that writes dots out, and for scores.
        """
        if not self.spec.folded:
            return None
        k, groups, device = self.spec.k, self.spec.groups, kernel.device
        packed = Packed(self.weights.words.to(device), k, groups)
        threshold, flip = (self.tensors[name].to(device) for name in ("threshold", "flip"))
        if self.spec.kind == "conv":
            direct = kernel.convolution(packed, height, width)
            return None if direct is None else self._bits_of(direct, threshold, flip)
        if not kernel.fused:
            return None
        weights = kernel.weights(packed)

        def multiply(words: Tensor) -> Tensor:
            operand = kernel.activations(Packed(words.flatten(1).to(device), k, groups))
            bits = kernel.product_bits(operand, weights, threshold, flip)
            return kernel.packed_rows(bits).words.to("cpu")

        return multiply

    def _bits_of(self, direct: Convolution, threshold: Tensor, flip: Tensor) -> Dots:
        assert self.flips is not None
        flips, pool, after = self.flips, self.spec.pool, self.spec.pool_last

        def multiply(words: Tensor) -> Tensor:
            inside = pool and not after
            bits = direct.bits(words.to(threshold.device), threshold, flip, inside).to("cpu")
            return conv.pool_bits(bits, flips) if pool and after else bits

        return multiply

    def dots_on_pixels(self, way: str, height: int, width: int) -> Dots:
        """Return the map of uint8 pixels [n, c, h, w] to int32 dots, [n*h*w, N] or [n, N]."""
        if self.spec.kind == "conv":
            return conv_on_pixels(self.weights, way, height, width)
        return linear_on_pixels(self.weights, way)

    def bits_on_pixels(self, way: str, height: int, width: int) -> Dots | None:
        """Return the map of pixels to packed rows or maps in one call; None: by dots."""
        if not self.spec.folded:
            return None
        size = (height, width) if self.spec.kind == "conv" else None
        found = bits_on_pixels(self.weights, way, size)
        if found is None:
            return None
        threshold, flip, flips = self.tensors["threshold"], self.tensors["flip"], self.flips
        assert flips is not None

        def multiply(u: Tensor) -> Tensor:
            bits = found(u, threshold, flip)
            return conv.pool_bits(bits, flips) if self.spec.pool else bits

        return multiply

    def output(self, dots: Tensor, height: int, width: int) -> Tensor:
        """Return the packed activations, [n, h, w, W] or [n, W], or the scores [n, N]."""
        if self.block is not None:
            return self.block.norm_from_dots(dots.float())
        assert self.flips is not None
        bits = pack_threshold(dots, self.tensors["threshold"], self.tensors["flip"]).words
        if self.spec.kind == "linear":
            return bits
        bits = bits.view(-1, height, width, bits.shape[1])
        return conv.pool_bits(bits, self.flips) if self.spec.pool else bits

    def forward_real(self, x: Tensor) -> Tensor:
        """Return the packed activations of preprocessed pixels [n, c, h, w].

        The training network's own operations on ±1 weights, so that sums round alike.
        """
        assert self.block is not None
        signs = self.block(x)
        return conv.pack_map(signs) if signs.dim() == 4 else pack_rows(signs).words


def _float_block(spec: LayerSpec, tensors: dict[str, Tensor], seed: int) -> Block:
    streams = Streams(seed)
    convolves = spec.kind == "conv"
    filters = (spec.outputs, spec.k // conv.TAPS, 3, 3)
    shape = filters if convolves else (spec.outputs, spec.k)
    layer = (Conv3x3 if convolves else Linear)(shape, "det", "det", streams["init"], None)
    norm = build_norm(spec.norm, spec.outputs, spec.k)
    norm.load_state_dict(below(tensors, "norm."))
    with torch.no_grad():
        layer.weight.copy_(unpack_weight(tensors["words"], spec).reshape(shape))
        layer.bias.copy_(tensors["bias"])
    activation = "sign" if spec.output == "bits" else "none"
    return Block(layer, norm, activation, streams, spec.pool, pool_last=spec.pool_last).eval()


@dataclass(frozen=True)
class Step:
    """A layer with its product, on maps of ``height`` x ``width``; ``fused``: straight to bits."""

    layer: PackedLayer
    product: Dots
    height: int
    width: int
    fused: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the packed activations, or the scores, of the layer before's."""
        found = self.product(x)
        return found if self.fused else self.layer.output(found, self.height, self.width)


def _parts(x: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(x), size):
        yield x[start : start + size]


class PackedNetwork:
    """A packed network, ready to predict with any kernel of :mod:`kernels.registry`."""

    def __init__(self, model: Model) -> None:
        self.spec = model.spec
        self.layers = [
            PackedLayer(layer, model.layer(i), model.spec.seed)
            for i, layer in enumerate(model.spec.layers)
        ]
        self._preprocess = below(model.tensors, "preprocess.")

    @classmethod
    def load(cls, path: Path) -> "PackedNetwork":
        """Read ``model.bnn``. A missing or damaged file is a HarnessError."""
        return cls(load_model(path))

    @property
    def first_layers(self) -> tuple[str, ...]:
        """The ways to run the first layer: ``int8`` and ``bitplanes``, or ``real`` alone."""
        real = self.layers[0].spec.input == "real"
        return ("real",) if real else tuple(PIXEL_PRODUCTS)

    @torch.no_grad()
    def predict(
        self,
        pixels: npt.NDArray[np.uint8],
        kernel: str,
        first_layer: str | None = None,
        device: str = "cpu",
    ) -> Tensor:
        """Return the scores float32 [n, 10] of uint8 pixels [n, c, h, w].

        ``kernel`` of ``device`` multiplies packed activations; ``first_layer`` is one of
        :attr:`first_layers` (default: the first). Hidden layers take as many images at once as fit
        :data:`WORKING_BYTES`; real pixels come in the batches of the training network's evaluation.

        Raises:
            HarnessError: images of another shape, an unknown kernel or first layer.
        """
        first_layer = first_layer or self.first_layers[0]
        self._check(pixels, first_layer)
        steps = self._steps(kernel, first_layer, device)
        scores = [self._run(part, steps) for part in self._entries(pixels, first_layer)]
        return torch.cat(scores) if scores else torch.empty(0, self.layers[-1].spec.outputs)

    def few(self, images: int, first_layer: str) -> int:
        """Return how many images come in parts of all the sizes that ``images`` come in."""
        whole = EVALUATION_BATCH if first_layer == "real" else self._images_at_once()
        return min(images, whole + images % whole)

    def _check(self, pixels: npt.NDArray[np.uint8], first_layer: str) -> None:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self.spec.image_shape:
            raise HarnessError(
                f"expected uint8 images of shape {self.spec.image_shape} ({self.spec.dataset}), "
                f"found {pixels.dtype} of shape {pixels.shape[1:]}"
            )
        if first_layer not in self.first_layers:
            raise HarnessError(
                f"first layer {first_layer!r}: this network takes {', '.join(self.first_layers)}"
            )

    def _steps(self, kernel: str, first_layer: str, device: str) -> list[Step]:
        """Return the layers as functions, with weights ready for ``kernel``, from integers on."""
        try:
            found = registry.get(kernel, device)
        except ValueError as error:
            raise HarnessError(str(error)) from error
        steps: list[Step] = []
        for layer, (height, width) in zip(self.layers, self._sizes(), strict=True):
            if layer.spec.input == "bits":
                bits = layer.bits_on_bits(found, height, width)
                dots = bits or layer.dots_on_bits(found, height, width)
            elif layer.spec.input == "odd-integers":
                bits = layer.bits_on_pixels(first_layer, height, width)
                dots = bits or layer.dots_on_pixels(first_layer, height, width)
            else:
                continue
            steps.append(Step(layer, dots, height, width, fused=bits is not None))
        return steps

    def _run(self, x: Tensor, steps: list[Step]) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    def _sizes(self) -> list[tuple[int, int]]:
        """Return the height and width of the map that each layer takes, flat or not."""
        _, height, width = self.spec.image_shape
        sizes = []
        for layer in self.layers:
            sizes.append((height, width))
            if layer.spec.pool:
                height, width = height // 2, width // 2
        return sizes

    def _entries(self, pixels: npt.NDArray[np.uint8], first_layer: str) -> Iterator[Tensor]:
        """Yield the images in parts, as the first integer product takes them."""
        part = self._images_at_once()
        if first_layer != "real":
            yield from _parts(torch.from_numpy(np.ascontiguousarray(pixels)), part)
            return
        state = {name: tensor.numpy() for name, tensor in self._preprocess.items()}
        # All at once, as training does: whitening rounds by the block.
        real = torch.from_numpy(from_state(self.spec.preprocess, state).apply(pixels))
        for batch in _parts(real, EVALUATION_BATCH):
            yield from _parts(self.layers[0].forward_real(batch), part)

    def _images_at_once(self) -> int:
        sizes = zip(self.layers, self._sizes(), strict=True)
        return max(WORKING_BYTES // max(x.working_bytes(h * w) for x, (h, w) in sizes), 1)
