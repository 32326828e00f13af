"""What to run, as frozen data: binarization modes and training recipes, loaded strictly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.errors import HarnessError
from harness.modes import MODES, Binarization, Mode, get_mode
from harness.strict import as_mapping, from_mapping, merge, nest

__all__ = [  # named here for those that load a spec
    "MODES", "Binarization", "Mode", "as_mapping", "from_mapping", "get_mode", "merge", "nest",
]  # fmt: skip

DatasetName = Literal["mnist", "cifar10", "svhn"]
DATASETS: tuple[str, ...] = get_args(DatasetName)
RECIPES = ("theano", "torch7", "torch7-released", "binaryconnect", "ebp", "bitwise", "ternary")
EPSILONS = (2.0**-126, (2 - 2.0**-23) * 2.0**127)  # normal float32: below may be taken as 0
RECIPE_FOLDER = Path(__file__).resolve().parent / "recipes"


def _require(holds: bool, key: str, allowed: str, found: Any) -> None:
    if not holds:  # written so that NaN, which compares false, is refused
        raise HarnessError(f"{key} must be {allowed}, found {found}")


def _require_epsilon(key: str, eps: float) -> None:
    least, most = EPSILONS
    _require(least <= eps <= most, key, "a finite float32 above 0 (1.2e-38 to 3.4e38)", eps)


@dataclass(frozen=True)
class NormSpec:
    """Batch normalisation. ``momentum`` is the weight of the newest batch in the running averages.

    ``lasagne``: running inverse deviation, biased; ``torch``: running variance, unbiased;
    ``shift``: shift-based, paper's Algorithm 3. ``running`` says what its running average is of:
    the inverse deviation by its own formula (the released code), its variance, or the inverse
    deviation by the vanilla formula; the first two kinds have theirs by name. ``fan-in``: no batch
    norm, only a division by ``sqrt(K + 1)`` for K inputs; it takes neither eps nor momentum.
    """

    kind: Literal["lasagne", "torch", "shift", "fan-in"]
    eps: float = 0.0
    momentum: float = 0.0
    running: Literal["inverse-std", "variance", "vanilla"] = "inverse-std"

    def __post_init__(self) -> None:
        if self.kind != "shift" and self.running != "inverse-std":
            raise HarnessError(
                f"norm.running {self.running!r} is for norm.kind 'shift', found {self.kind!r}"
            )
        if self.kind == "fan-in":
            _require(self.eps == 0, "norm.eps", "left out for fan-in", self.eps)
            _require(self.momentum == 0, "norm.momentum", "left out for fan-in", self.momentum)
            return
        _require_epsilon("norm.eps", self.eps)
        _require(0 < self.momentum <= 1, "norm.momentum", "in (0, 1]", self.momentum)


@dataclass(frozen=True)
class NetworkSpec:
    """The MLP or the ConvNet of the paper, section 2.

    ``hidden`` are the MLP's widths; ``width`` is w of ConvNet(w) and ``fc`` its two fully
    connected widths. ``first_layer`` and ``last_layer`` say whether that layer's weights follow
    the mode (``mode``, the paper's choice) or stay real (``real``). ``ste`` is the backward of a
    binary activation: ``gated`` cancels the gradient beyond [-1, 1] (the paper), ``identity``
    passes all of it. ``pool`` places the ConvNet's max-pooling before batch norm and sign (the
    paper) or after the sign. ``real_activation`` is the unit of a mode with real
    activations.
    """

    kind: Literal["mlp", "convnet"]
    norm: NormSpec
    output_norm: NormSpec
    hidden: tuple[int, ...] = ()
    width: int = 0
    fc: int = 0
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    first_layer: Literal["mode", "real"] = "mode"
    last_layer: Literal["mode", "real"] = "mode"
    ste: Literal["gated", "identity"] = "gated"
    pool: Literal["before-norm", "after-sign"] = "before-norm"
    real_activation: Literal["relu", "tanh"] = "relu"

    def __post_init__(self) -> None:
        needed = {"mlp": ("hidden",), "convnet": ("width", "fc")}[self.kind]
        for key in ("hidden", "width", "fc"):
            if (key in needed) != bool(getattr(self, key)):
                state = "needs" if key in needed else "does not take"
                raise HarnessError(f"network kind {self.kind!r} {state} {key!r}")
        _require(min(self.hidden, default=1) >= 1, "network.hidden", "at least 1", self.hidden)
        for key in ("width", "fc"):
            size = getattr(self, key)
            _require(size >= (key in needed), f"network.{key}", "at least 1", size)
        for key in ("input_dropout", "hidden_dropout"):
            rate = getattr(self, key)
            _require(0 <= rate < 1, f"network.{key}", "in [0, 1)", rate)
        if self.kind == "convnet" and (self.input_dropout or self.hidden_dropout):
            raise HarnessError("the ConvNet takes no dropout (paper, section 2)")
        if self.kind == "mlp" and self.pool != "before-norm":
            raise HarnessError(f"network.pool {self.pool!r}: the MLP has no pooling")


@dataclass(frozen=True)
class OptimizerSpec:
    """The update rule. ``lr_scale`` multiplies each binary layer's step by its Glorot coefficient.

    ``glorot`` is 1/sqrt(1.5/(fan_in+fan_out)), ``glorot-ap2`` the same rounded to a power of two.
    ``stored_ap2`` keeps the second moment of shift-AdaMax rounded, as the released code does.
    ``clip`` keeps latent weights in [-1, 1] after each step (paper, Algorithm 1).
    """

    kind: Literal["adam-lasagne", "adam-torch", "shift-adamax"]
    beta1: float
    beta2: float
    eps: float
    lr_scale: Literal["glorot", "glorot-ap2", "none"]
    stored_ap2: bool = False
    clip: bool = True

    def __post_init__(self) -> None:
        for key in ("beta1", "beta2"):
            beta = getattr(self, key)
            _require(0 <= beta < 1, f"optimizer.{key}", "in [0, 1)", beta)
        _require_epsilon("optimizer.eps", self.eps)


@dataclass(frozen=True)
class ScheduleSpec:
    """Learning rate per epoch: ``exponential`` from start to end, or ``halving`` every n epochs."""

    kind: Literal["exponential", "halving"]
    start: float
    end: float = 0.0
    every: int = 0

    def __post_init__(self) -> None:
        _require(0 < self.start < math.inf, "schedule.start", "above 0 and finite", self.start)
        if self.kind == "exponential":
            _require(0 < self.end <= self.start, "schedule.end", f"in (0, {self.start}]", self.end)
        else:
            _require(self.every >= 1, "schedule.every", "at least 1", self.every)

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the learning rate of ``epoch`` (from 0) in a run of ``epochs``.

        Exponential: ``start * (end/start)^(epoch/epochs)``, the authors' per-epoch decay.
        Halving: ``start * 2^-(epoch // every)``.
        """
        if self.kind == "exponential":
            return float(self.start * (self.end / self.start) ** (epoch / epochs))
        return float(self.start * 2.0 ** -(epoch // self.every))


@dataclass(frozen=True)
class MethodSpec:
    """The learning rule: ``backprop`` through the mode, or that of a prior system of Table 1.

    ``ebp``: expectation backpropagation. ``bitwise`` and ``ternary`` train a real network for
    ``real_epochs``, then retrain it quantized for the rest. ``zero_fraction`` is the share of
    bitwise's weights that are zero, lambda. Rules of their own have the modes ``float`` (their
    real network) and ``bnn-det`` alone.
    """

    kind: Literal["backprop", "ebp", "bitwise", "ternary"] = "backprop"
    real_epochs: int = 0
    zero_fraction: float = 0.0

    def __post_init__(self) -> None:
        staged = self.kind in ("bitwise", "ternary")
        allowed = "at least 1" if staged else f"left out for {self.kind}"
        holds = self.real_epochs >= 1 if staged else self.real_epochs == 0
        _require(holds, "method.real_epochs", allowed, self.real_epochs)
        if self.kind == "bitwise":
            _require(
                0 <= self.zero_fraction < 1, "method.zero_fraction", "in [0, 1)", self.zero_fraction
            )
        else:
            _require(
                self.zero_fraction == 0,
                "method.zero_fraction",
                f"left out for {self.kind}",
                self.zero_fraction,
            )


@dataclass(frozen=True)
class Recipe:
    """How one code base trained one dataset (paper, section 2; prior systems, Table 1).

    ``precision`` is of the products: ``exact`` takes the library's float32; ``fast`` packed kernels
    on the CPU and tensor cores on a GPU. Products of ±1 with ±1 keep their bits forward. Gradients
    are rounded backward: to 12 bits, on a GPU to 16 (two bfloat16 pieces) in linear layers and to
    11 (float16) in convolutions. Real inputs of ±1 weights keep 24 bits forward, on a GPU in linear
    layers of ReLU and signs; backward, on a CPU, the gradient by them has 12 bits and the weights'
    is float32's, on a GPU there both have 16. Other products of reals are float32's on a CPU; on a
    GPU they take TF32's 11 bits, but 22 forward where a BNN's first convolution has pixels.
    """

    name: str
    dataset: DatasetName
    variant: Literal["paper", "released"]
    preprocess: Literal["scale", "global", "zca", "gcn-lcn", "gcn-zca", "pixel-mean", "bipolar"]
    network: NetworkSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    batch: int
    epochs: int
    method: MethodSpec = MethodSpec()
    precision: Literal["exact", "fast"] = "exact"

    def __post_init__(self) -> None:
        for key in ("batch", "epochs"):
            count = getattr(self, key)
            _require(count >= 1, f"recipe.{key}", "at least 1", count)
        below = f"below the {self.epochs} epochs"
        real = self.method.real_epochs
        _require(real < self.epochs or real == 0, "method.real_epochs", below, real)
        if self.method.kind != "backprop":
            self._check_own_rule()
            allowed = f"'exact' for method {self.method.kind!r}"
            _require(self.precision == "exact", "recipe.precision", allowed, self.precision)

    def _check_own_rule(self) -> None:
        network, kind = self.network, self.method.kind
        plain = (
            network.kind == "mlp"
            and network.norm.kind == network.output_norm.kind == "fan-in"
            and network.first_layer == network.last_layer == "mode"
            and not (network.input_dropout or network.hidden_dropout)
        )
        if not plain:
            raise HarnessError(
                f"method {kind!r} takes an MLP with norm and output_norm of kind 'fan-in', "
                "without dropout or real first and last layers"
            )

    def deployed_mode(self, mode: Mode) -> Mode:
        """Return the mode by which a run's network at test time is built, from stored weights.

        Ternary weights, and bitwise ones with zeros, are stored as the numbers they are; binary
        weights are the signs of what is stored.
        """
        zeros = self.method.kind == "ternary" or self.method.zero_fraction > 0
        return Mode(mode.name, "real", mode.activations) if zeros else mode

    def check_mode(self, mode: Mode) -> None:
        """Refuse a mode that the recipe's learning rule does not know.

        Raises:
            HarnessError: the mode and the allowed ones.
        """
        if self.method.kind != "backprop" and mode.name not in ("float", "bnn-det"):
            raise HarnessError(
                f"recipe {self.name!r} (method {self.method.kind!r}) takes the modes float and "
                f"bnn-det, found {mode.name!r}"
            )


def _read_recipe(name: str, dataset: str) -> dict[str, Any]:
    path = RECIPE_FOLDER / f"{name}-{dataset}.yaml"
    if name not in RECIPES or dataset not in DATASETS or not path.exists():
        raise HarnessError(
            f"no recipe {name!r} for dataset {dataset!r}; "
            f"recipes: {', '.join(RECIPES)}; datasets: {', '.join(DATASETS)}"
        )
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = values.pop("base", None)
    return values if base is None else merge(_read_recipe(base, dataset), values)


def load_recipe(name: str, dataset: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load ``recipes/<name>-<dataset>.yaml``, with dotted ``overrides`` laid over it.

    A variant's file names its ``base`` and states only what differs.

    Raises:
        HarnessError: an unknown recipe, dataset, key or value; the message gives the allowed ones.
    """
    for key in ("name", "dataset"):
        if key in (overrides or {}):
            raise HarnessError(f"recipe {name}-{dataset}: {key!r} is chosen by the recipe's file")
    values = merge(_read_recipe(name, dataset), nest(overrides or {}))
    return from_mapping(Recipe, values, f"recipe {name}-{dataset}")
