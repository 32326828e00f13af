"""``model.bnn``: a packed network as safetensors with a JSON description. No pickle, no code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.data.preprocess import from_state
from harness.errors import HarnessError
from harness.spec import NormSpec, as_mapping, from_mapping
from harness.train.checkpoint import write_whole
from kernels.packing import Packed, pack_rows, unpack_rows, words_for

MODEL, SUFFIX = "model.bnn", ".bnn"
MODEL_SCHEMA = 1
_KEY = "bnn"  # "<SHA-256> <JSON>": one entry, for safetensors writes several in no fixed order
_FLOATS = ("bias", "norm.weight", "norm.bias", "norm.running_mean")
TAPS = 9  # of a 3x3 filter
Input = Literal["bits", "odd-integers", "real"]


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a packed network.

    ``input`` is what its weights meet: ``bits``, ``odd-integers`` (2u - 255 of pixels u) or
    ``real`` (preprocessed pixels). A row of weights has ``groups`` runs of ``channels`` bits, each
    run padded to whole words: 9 taps of a convolution on bits, the positions of the map below the
    first fully connected layer, else one. ``output`` is ``bits``, or ``scores`` at the last layer.
    ``norm`` names the batch norm: folded into thresholds, or kept where input or output is real.
    ``scale`` and ``offset`` are those of the affine preprocessing behind odd integers.
    ``pool_last`` pools the bits instead of what is below the threshold.
    """

    kind: Literal["linear", "conv"]
    input: Input
    output: Literal["bits", "scores"]
    outputs: int
    groups: int
    channels: int
    pool: bool
    norm: NormSpec
    scale: float = 1.0
    offset: float = 0.0
    pool_last: bool = False

    @property
    def k(self) -> int:
        """Return the number of weights of one output: the true length of a row."""
        return self.groups * self.channels

    @property
    def words(self) -> int:
        """Return the 64-bit words of a row."""
        return self.groups * words_for(self.channels)

    @property
    def folded(self) -> bool:
        """True where batch norm and sign are an integer threshold."""
        return self.input != "real" and self.output == "bits"

    def shapes(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return the type and shape of each of the layer's tensors, by name."""
        n = (self.outputs,)
        shapes = {"words": (torch.int64, (self.outputs, self.words))}
        if self.folded:
            return {**shapes, "threshold": (torch.int32, n), "flip": (torch.bool, n)}
        if self.norm.kind == "fan-in":
            return {**shapes, "bias": (torch.float32, n)}
        variance = self.norm.kind == "torch" or self.norm.running == "variance"
        floats = (*_FLOATS, "norm.running_var" if variance else "norm.running_inv_std")
        return {**shapes, **{name: (torch.float32, n) for name in floats}}


@dataclass(frozen=True)
class ModelSpec:
    """What a packed network is, and the run it comes from."""

    schema: int
    dataset: Literal["mnist", "cifar10", "svhn"]
    source: str
    recipe: str
    variant: str
    mode: str
    seed: int
    preset: str
    fingerprint: str
    image_shape: tuple[int, ...]
    preprocess: str
    layers: tuple[LayerSpec, ...]
    label: str = ""
    weights_sha256: str = ""  # of the best.safetensors that was packed


@dataclass(frozen=True)
class Model:
    """A packed network as data; ``tensors`` are ``layers.<i>.<name>`` and ``preprocess.<name>``."""

    spec: ModelSpec
    tensors: dict[str, Tensor]

    def layer(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of one layer by their own names."""
        return below(self.tensors, f"layers.{index}.")


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def pack_weight(weight: Tensor, spec: LayerSpec) -> Tensor:
    """Return weights [N, K] or [N, C, 3, 3] as words [N, spec.words], in the layout of ``spec``.

    On bits, channels run fastest: (tap, channel) in a convolution, (position, channel) below a
    map, as the packed activations [h, w, channel] lie. The first layer keeps the pixels' order.
    """
    runs = weight.reshape(spec.outputs, spec.channels, spec.groups).transpose(1, 2)
    return pack_rows(runs.reshape(-1, spec.channels)).words.reshape(spec.outputs, spec.words)


def unpack_weight(words: Tensor, spec: LayerSpec) -> Tensor:
    """Return the ±1 float32 weights [N, channels, groups] behind :func:`pack_weight`'s words."""
    signs = unpack_rows(Packed(words, spec.k, spec.groups))
    return signs.reshape(spec.outputs, spec.groups, spec.channels).transpose(1, 2)


def save_model(path: Path, model: Model) -> None:
    """Write ``model.bnn``, atomically, with a digest of all that it holds.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.tensors.items()}
    text = json.dumps(as_mapping(model.spec), sort_keys=True)
    entry = {_KEY: f"{_digest(text, tensors)} {text}"}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=entry))


def load_model(path: Path) -> Model:
    """Read and check ``model.bnn``.

    Raises:
        HarnessError: the file is missing, damaged, of another schema, or does not hold what its
            description says; the message names the file and the remedy.
    """
    if not path.exists():
        raise HarnessError(f"{path} does not exist; export the run first: {how_to_export(path)}")
    try:
        with safe_open(path, "pt") as handle:
            entry = (handle.metadata() or {}).get(_KEY)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if entry is None:
        raise _damaged(path, "it carries no description")
    digest, _, text = entry.partition(" ")
    if digest != _digest(text, tensors):
        raise _damaged(path, "its content does not match its digest")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its description is not JSON: {error}") from error
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != MODEL_SCHEMA:
        raise _damaged(path, f"schema {schema!r}, expected {MODEL_SCHEMA}")
    model = Model(from_mapping(ModelSpec, values, str(path)), tensors)
    wrong = _wrong_layer(model.spec) or _wrong_tensor(model) or _wrong_preprocessing(model)
    if wrong is not None:
        raise _damaged(path, wrong)
    return model


def _wrong_layer(spec: ModelSpec) -> str | None:
    """Return which layer cannot follow the one before it, and why; None where all do."""
    if len(spec.image_shape) != 3 or min(spec.image_shape) < 1 or len(spec.layers) < 2:
        return f"{len(spec.layers)} layers on images of {list(spec.image_shape)}"
    channels, height, width = spec.image_shape
    flat = False
    for i, layer in enumerate(spec.layers):
        convolves, last = layer.kind == "conv", i == len(spec.layers) - 1
        positions = height * width
        groups = 1 if i == 0 else TAPS if convolves else positions
        wanted = {
            "input": layer.input if i == 0 else "bits",
            "output": "scores" if last else "bits",
            "groups": groups,
            "channels": channels * (TAPS if convolves else positions) // groups,
            "outputs": max(layer.outputs, 1),
            "pool": layer.pool and convolves and min(height, width) > 1,
        }
        for name, value in wanted.items():
            if getattr(layer, name) != value:
                return f"layers.{i}.{name}: expected {value!r}, found {getattr(layer, name)!r}"
        if (convolves and (flat or last)) or (i == 0 and layer.input == "bits"):
            return f"layers.{i}: a {layer.kind} layer on {layer.input} at that place"
        flat, channels = not convolves, layer.outputs
        size = 2 if layer.pool else 1
        height, width = (1, 1) if flat else (height // size, width // size)
    return None


def _wrong_tensor(model: Model) -> str | None:
    """Return which tensor is not as the layers want it; None where all are."""
    real = model.spec.layers[0].input == "real"
    rest = {name for name in model.tensors if not (real and name.startswith("preprocess."))}
    for i, layer in enumerate(model.spec.layers):
        for own, (dtype, shape) in layer.shapes().items():
            name = f"layers.{i}.{own}"
            found = model.tensors.get(name)
            if found is None or found.dtype != dtype or tuple(found.shape) != shape:
                what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                return f"{name}: expected {dtype} {list(shape)}, found {what}"
            rest.discard(name)
    return f"{min(rest)}: no layer has it" if rest else None


def _wrong_preprocessing(model: Model) -> str | None:
    """Return why the preprocessing of real pixels cannot be had again; None where it can."""
    if model.spec.layers[0].input != "real":
        return None
    try:
        state = {k: v.numpy() for k, v in below(model.tensors, "preprocess.").items()}
        blank = np.zeros((1, *model.spec.image_shape), np.uint8)
        from_state(model.spec.preprocess, state).apply(blank)
    except (KeyError, TypeError, ValueError) as error:
        return f"preprocess {model.spec.preprocess!r}: {type(error).__name__} {error}"
    return None


def how_to_export(path: Path, run: Path | None = None) -> str:
    """Return the command that writes a model again; ``run`` is its run's folder, where known."""
    if path.name == MODEL and run in (None, path.parent):
        return f"bnn export --run {path.parent}"
    return f"bnn export --run {run or '<its run>'} --out {path}"


def _damaged(path: Path, reason: str) -> HarnessError:
    return HarnessError(
        f"{path} is damaged ({reason}); export the run again: {how_to_export(path)}"
    )


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weight_bytes(spec: ModelSpec) -> tuple[int, int]:
    """Return the bytes of all weights, packed (with pads) and as float32."""
    packed = sum(8 * layer.outputs * layer.words for layer in spec.layers)
    return packed, sum(4 * layer.outputs * layer.k for layer in spec.layers)
