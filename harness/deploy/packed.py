"""The packed network at run time: words in, words out, one integer product a layer.

Paper, Algorithm 5: the first layer multiplies 8-bit pixels, hidden layers packed activations; the
last layer's exact integers go through batch norm in float32.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from kernels.firstlayer import pixels_product_bitplanes, pixels_product_int8
from torch import Tensor

from harness.data.preprocess import from_state
from harness.deploy.fold import MAX_PIXEL
from harness.deploy.maps import border_correction, pixel_patches, pool_bits, word_patches
from harness.deploy.modelfile import TAPS, LayerSpec, Model, below, load_model, unpack_weight
from harness.errors import HarnessError
from harness.nn.layers import Conv3x3, Linear
from harness.nn.networks import Block
from harness.nn.norm import build_norm
from harness.nn.streams import Streams
from harness.train.loop import EVALUATION_BATCH
from kernels import registry
from kernels.packing import Packed, pack_rows, pack_threshold

# Bound of the operands and products that a layer holds at once, unpacked to float32.
WORKING_BYTES = 2**28
Product = Callable[[Tensor], Tensor]
PIXEL_PRODUCTS = {"int8": pixels_product_int8, "bitplanes": pixels_product_bitplanes}


class PackedLayer:
    """One layer: integer dots from a product, thresholds to bits, or scores."""

    def __init__(self, spec: LayerSpec, tensors: dict[str, Tensor], seed: int) -> None:
        self.spec, self.tensors = spec, tensors
        self.weights = Packed(tensors["words"], spec.k, spec.groups)
        self.block = None if spec.folded else _float_block(spec, tensors, seed)
        if spec.folded:
            self.falling = pack_rows(tensors["flip"][None]).words[0]
        if spec.kind == "conv" and spec.input != "real":
            signs = unpack_weight(tensors["words"], spec)
            # [N, C, 9] on bits; [N, C*9, 1] on pixels: either way the taps run last.
            self.tap_sums = signs.reshape(spec.outputs, -1, TAPS).sum(1)

    def working_bytes(self, positions: int) -> int:
        """Return the bytes that one image with ``positions`` outputs a channel may need."""
        rows = positions if self.spec.kind == "conv" else 1
        return rows * (4 * 64 * self.spec.words + 12 * self.spec.outputs)

    def patches(self, x: Tensor) -> Tensor:
        """Return the product's left operand: rows of words, or of uint8 pixels."""
        if self.spec.kind == "linear":
            return x.flatten(1)
        return word_patches(x) if self.spec.input == "bits" else pixel_patches(x)

    def forward(self, x: Tensor, product: Product) -> Tensor:
        """Return the packed activations, [n, h, w, W] or [n, W], or the scores [n, N]."""
        dots = product(self.patches(x))
        if self.spec.output == "scores":
            assert self.block is not None
            return self.block.norm_from_dots(dots.float())
        if self.spec.kind == "linear":
            return self._bits(dots)
        h, w = x.shape[1:3] if self.spec.input == "bits" else x.shape[2:]
        outside = 1 if self.spec.input == "bits" else MAX_PIXEL
        dots = dots.view(-1, h * w, self.spec.outputs)
        dots = dots + border_correction(self.tap_sums, h, w, outside)
        bits = self._bits(dots.view(-1, self.spec.outputs)).view(len(x), h, w, -1)
        return pool_bits(bits, self.falling) if self.spec.pool else bits

    def _bits(self, dots: Tensor) -> Tensor:
        return pack_threshold(dots, self.tensors["threshold"], self.tensors["flip"]).words

    def forward_real(self, x: Tensor) -> Tensor:
        """Return the packed activations of preprocessed pixels [n, c, h, w].

        The training network's own operations on ±1 weights, so that sums round alike.
        """
        assert self.block is not None
        signs = self.block(x)
        if signs.dim() == 2:
            return pack_rows(signs).words
        n, c, h, w = signs.shape
        rows = signs.permute(0, 2, 3, 1).reshape(-1, c)
        return pack_rows(rows).words.view(n, h, w, -1)


def _float_block(spec: LayerSpec, tensors: dict[str, Tensor], seed: int) -> Block:
    streams = Streams(seed)
    conv = spec.kind == "conv"
    shape = (spec.outputs, spec.k // TAPS, 3, 3) if conv else (spec.outputs, spec.k)
    layer = (Conv3x3 if conv else Linear)(shape, "det", "det", streams["init"], None)
    norm = build_norm(spec.norm, spec.outputs)
    norm.load_state_dict(below(tensors, "norm."))
    with torch.no_grad():
        layer.weight.copy_(unpack_weight(tensors["words"], spec).reshape(shape))
        layer.bias.copy_(tensors["bias"])
    activation = "sign" if spec.output == "bits" else "none"
    return Block(layer, norm, activation, streams, spec.pool).eval()


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
        self, pixels: npt.NDArray[np.uint8], kernel: str, first_layer: str | None = None
    ) -> Tensor:
        """Return the scores float32 [n, 10] of uint8 pixels [n, c, h, w].

        ``kernel`` multiplies packed activations; ``first_layer`` is one of :attr:`first_layers`
        (default: the first). Hidden layers take as many images at once as fit
        :data:`WORKING_BYTES`; real pixels come in the batches of the training network's evaluation.

        Raises:
            HarnessError: images of another shape, an unknown kernel or first layer.
        """
        first_layer = first_layer or self.first_layers[0]
        self._check(pixels, first_layer)
        products = self._products(kernel, first_layer)
        scores = [self._run(part, products) for part in self._entries(pixels, first_layer)]
        return torch.cat(scores) if scores else torch.empty(0, self.layers[-1].spec.outputs)

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

    def _products(self, kernel: str, first_layer: str) -> list[Product]:
        try:
            found = registry.get(kernel)
        except ValueError as error:
            raise HarnessError(str(error)) from error

        def bits(layer: PackedLayer) -> Product:
            k, groups, device = layer.spec.k, layer.spec.groups, found.device
            weights = found.weights(Packed(layer.weights.words.to(device), k, groups))

            def product(words: Tensor) -> Tensor:
                operand = found.activations(Packed(words.to(device), k, groups))
                dots: Tensor = found.product(operand, weights)
                return dots.to("cpu", torch.int32)

            return product

        def pixels(layer: PackedLayer) -> Product:
            multiply = PIXEL_PRODUCTS[first_layer]
            return lambda rows: multiply(rows.contiguous(), layer.weights)

        inner = [bits(layer) for layer in self.layers[1:]]
        return inner if first_layer == "real" else [pixels(self.layers[0]), *inner]

    def _run(self, x: Tensor, products: list[Product]) -> Tensor:
        for layer, product in zip(self.layers[-len(products) :], products, strict=True):
            x = layer.forward(x, product)
        return x

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
        positions = self.spec.image_shape[1] * self.spec.image_shape[2]
        largest = 1
        for layer in self.layers:
            largest = max(largest, layer.working_bytes(positions))
            positions //= 4 if layer.spec.pool else 1
        return max(WORKING_BYTES // largest, 1)
