"""From a run's best weights to a packed network: ``model.bnn`` and ``export.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.data.names import IMAGE_SHAPES
from harness.data.preprocess import from_state
from harness.deploy.fold import fold, largest_dot
from harness.deploy.modelfile import (
    MODEL,
    MODEL_SCHEMA,
    SUFFIX,
    TAPS,
    Input,
    LayerSpec,
    Model,
    ModelSpec,
    below,
    pack_weight,
    save_model,
    weight_bytes,
)
from harness.errors import HarnessError
from harness.files import read_record, sha256_file, write_json
from harness.nn.layers import Conv3x3
from harness.nn.networks import BinaryNetwork, Block, build_network
from harness.nn.streams import Streams
from harness.spec import NetworkSpec, NormSpec, Recipe, from_mapping, get_mode
from harness.train.checkpoint import BEST, read_weights
from harness.train.record import RUN

EXPORT, EXPORT_SCHEMA = "export.json", 1
IDENTITY = ("preset", "dataset", "source", "recipe", "variant", "mode", "seed")


def read_run(folder: Path, allow_running: bool = False) -> dict[str, Any]:
    """Read run.json of a run that ended.

    Raises:
        HarnessError: there is none, or the run still trains and ``allow_running`` is not set.
    """
    run = read_record(folder / RUN, "status", "resolved", "fingerprint", "data", *IDENTITY)
    if run["status"] == "running" and not allow_running:
        raise HarnessError(
            f"{folder / RUN}: status 'running', expected 'done'; let bnn train end, or take the "
            "best weights so far with --allow-running"
        )
    return run


def why_not(run: Mapping[str, Any], recipe: Recipe) -> str | None:
    """Return why a run has no packed form, or None where it has one."""
    if run["status"] == "failed":
        return f"the run failed: {run['failure']['reason']}"
    if not get_mode(run["mode"]).is_bnn:
        return f"mode {run['mode']!r} does not binarize both weights and activations"
    if recipe.deployed_mode(get_mode(run["mode"])).weights == "real":
        values = "-D, 0 and +D" if recipe.method.kind == "ternary" else "-1, 0 and +1"
        return f"method {recipe.method.kind!r}: its weights are {values}, which no single bit holds"
    for layer in ("first_layer", "last_layer"):
        if getattr(recipe.network, layer) != "mode":
            return f"network.{layer} is {getattr(recipe.network, layer)!r}: its weights are real"
    return None


def run_recipe(run: Mapping[str, Any]) -> Recipe:
    """Return the recipe a run was trained with, strictly read from its record."""
    return from_mapping(Recipe, run["resolved"], f"{RUN}: resolved")


def rebuild(
    run: Mapping[str, Any], tensors: Mapping[str, Tensor], image_shape: tuple[int, int, int]
) -> BinaryNetwork:
    """Build a run's training network with ``tensors`` of best.safetensors, in evaluation state.

    Raises:
        HarnessError: the tensors are not those of the recorded network.
    """
    recipe = run_recipe(run)
    state = {k: v.numpy() for k, v in below(tensors, "preprocess.").items()}
    affine = from_state(recipe.preprocess, state).affine
    pair = None if affine is None else (affine.scale, affine.offset)
    mode = recipe.deployed_mode(get_mode(run["mode"]))
    network = build_network(recipe.network, mode, Streams(run["seed"]), image_shape, pair)
    weights = {k: v for k, v in tensors.items() if not k.startswith("preprocess.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise HarnessError(f"{BEST} does not fit the network of {RUN}: {error}") from error
    return network.eval()


def pack_network(
    network: BinaryNetwork, image_shape: tuple[int, int, int], shape: NetworkSpec
) -> tuple[tuple[LayerSpec, ...], dict[str, Tensor]]:
    """Return the layers of a packed network and their tensors, ``layers.<i>.<name>``."""
    layers: list[LayerSpec] = []
    tensors: dict[str, Tensor] = {}
    positions, last = image_shape[1] * image_shape[2], len(network.blocks) - 1
    first: Input = "odd-integers" if network.integer_input else "real"
    for i, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        norm = shape.output_norm if i == last else shape.norm
        spec = _describe(block, "bits" if i else first, positions, norm, i == last)
        words = pack_weight(block.layer.used_weight().detach(), spec)
        head = _thresholds(block, spec) if spec.folded else _floats(block)
        tensors.update({f"layers.{i}.{k}": v for k, v in {"words": words, **head}.items()})
        layers.append(spec)
        positions = positions // (4 if block.pool else 1) if spec.kind == "conv" else 1
    return tuple(layers), tensors


def _describe(
    block: Block, operand: Input, positions: int, norm: NormSpec, last: bool
) -> LayerSpec:
    conv = isinstance(block.layer, Conv3x3)
    groups = 1 if operand != "bits" else TAPS if conv else positions
    return LayerSpec(
        kind="conv" if conv else "linear",
        input=operand,
        output="scores" if last else "bits",
        outputs=len(block.layer.weight),
        groups=groups,
        channels=block.layer.fan_in // groups,
        pool=block.pool,
        norm=norm,
        scale=block.scale,
        offset=block.offset,
        pool_last=block.pool_last,
    )


def _thresholds(block: Block, spec: LayerSpec) -> dict[str, Tensor]:
    found = fold(block, largest_dot(spec.k, spec.input == "odd-integers"))
    return {"threshold": found.value, "flip": found.flip}


def _floats(block: Block) -> dict[str, Tensor]:
    norm = {f"norm.{name}": tensor for name, tensor in block.norm.state_dict().items()}
    return {"bias": block.layer.bias.detach(), **norm}


def export_run(
    folder: Path, out: Path | None = None, allow_running: bool = False
) -> dict[str, Any]:
    """Write ``model.bnn`` and, beside it, ``export.json``; return the latter.

    A run without a packed form (it failed, or its weights are real) leaves a record of status
    ``skipped`` with the reason, and no model.

    Raises:
        HarnessError: no run, a run that still trains, damaged weights, or ``out`` names no model.
    """
    path = out or folder / MODEL
    if path.suffix != SUFFIX or path.is_dir():  # a run's own files must not be written over
        raise HarnessError(f"--out {path}: give a file whose name ends in {SUFFIX}, as in {MODEL}")
    run = read_run(folder, allow_running)
    recipe = run_recipe(run)
    reason = why_not(run, recipe)
    record = {"schema": EXPORT_SCHEMA, "status": "skipped", "reason": reason, **identity(run)}
    if reason is None:
        weights, tensors = read_weights(folder / BEST, run.get("best_sha256"))
        model = build_model(run, recipe, tensors, weights)
        save_model(path, model)
        record.update(status="done", **_sizes(path, model.spec))
    elif out is None:
        path.unlink(missing_ok=True)  # of an earlier run in this folder
    write_json(path.with_name(EXPORT), record)
    return record


def build_model(
    run: Mapping[str, Any], recipe: Recipe, tensors: Mapping[str, Tensor], weights_sha256: str
) -> Model:
    """Return the packed network of a run's weights, best.safetensors as ``tensors``."""
    image_shape = IMAGE_SHAPES[recipe.dataset]
    network = rebuild(run, tensors, image_shape)
    layers, packed = pack_network(network, image_shape, recipe.network)
    if not network.integer_input:
        packed |= {k: v for k, v in tensors.items() if k.startswith("preprocess.")}
    spec = ModelSpec(
        schema=MODEL_SCHEMA,
        **identity(run),
        fingerprint=run["fingerprint"],
        image_shape=image_shape,
        preprocess=recipe.preprocess,
        layers=layers,
        weights_sha256=weights_sha256,
    )
    return Model(spec, packed)


def identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a run in every record that derives from it."""
    return {**{key: run[key] for key in IDENTITY}, "label": run.get("label", "")}


def _sizes(path: Path, spec: ModelSpec) -> dict[str, Any]:
    packed, real = weight_bytes(spec)
    return {
        "model": path.name,
        "model_sha256": sha256_file(path),
        "model_bytes": path.stat().st_size,
        "bytes_packed": packed,
        "bytes_float32": real,
        "ratio": round(real / packed, 2),
    }
