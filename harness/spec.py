"""What to run, as frozen data: binarization modes and training recipes, loaded strictly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.errors import HarnessError
from harness.strict import as_mapping, from_mapping, merge, nest

__all__ = ["as_mapping", "from_mapping", "merge", "nest"]  # named here for those that load a spec

Binarization = Literal["real", "det", "stoch"]
DatasetName = Literal["mnist", "cifar10", "svhn"]
DATASETS: tuple[str, ...] = get_args(DatasetName)
RECIPES = ("theano", "torch7", "torch7-released")
RECIPE_FOLDER = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Mode:
    """A binarization mode: how weights and activations are binarized at train time.

    ``real`` keeps 32-bit floats, ``det`` takes the sign, ``stoch`` draws +1 with probability
    ``hard_sigmoid`` (paper, section 1.1). At test time a BNN is always deterministic.
    """

    name: str
    weights: Binarization
    activations: Binarization

    @property
    def is_bnn(self) -> bool:
        """True where weights and activations are both binary, so that XNOR kernels apply."""
        return self.weights != "real" and self.activations != "real"

    @property
    def test_weights(self) -> Binarization:
        """Weights at test time: BinaryConnect's stochastic form tests with the real ones."""
        if self.weights == "real" or (self.weights == "stoch" and not self.is_bnn):
            return "real"
        return "det"


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("float", "real", "real"),
        Mode("bc-det", "det", "real"),
        Mode("bc-stoch", "stoch", "real"),
        Mode("bnn-det", "det", "det"),
        Mode("bnn-stoch", "det", "stoch"),
        Mode("bnn-stoch-w", "stoch", "stoch"),
        Mode("bnn-w-stoch", "stoch", "det"),
    )
}


def _require(holds: bool, key: str, allowed: str, found: Any) -> None:
    if not holds:  # written so that NaN, which compares false, is refused
        raise HarnessError(f"{key} must be {allowed}, found {found}")


@dataclass(frozen=True)
class NormSpec:
    """Batch normalisation. ``momentum`` is the weight of the newest batch in the running averages.

    ``lasagne``: running inverse deviation, biased; ``torch``: running variance, unbiased;
    ``shift``: shift-based, paper's Algorithm 3. ``running`` says what its running average is of:
    the inverse deviation by its own formula (the released code), its variance, or the inverse
    deviation by the vanilla formula; the first two kinds have theirs by name.
    """

    kind: Literal["lasagne", "torch", "shift"]
    eps: float
    momentum: float
    running: Literal["inverse-std", "variance", "vanilla"] = "inverse-std"

    def __post_init__(self) -> None:
        if self.kind != "shift" and self.running != "inverse-std":
            raise HarnessError(
                f"norm.running {self.running!r} is for norm.kind 'shift', found {self.kind!r}"
            )
        _require(self.eps > 0, "norm.eps", "above 0", self.eps)
        _require(0 < self.momentum <= 1, "norm.momentum", "in (0, 1]", self.momentum)


@dataclass(frozen=True)
class NetworkSpec:
    """The MLP or the ConvNet of the paper, section 2.

    ``hidden`` are the MLP's widths; ``width`` is w of ConvNet(w) and ``fc`` its two fully
    connected widths. ``first_layer`` and ``last_layer`` say whether that layer's weights follow
    the mode (``mode``, the paper's choice) or stay real (``real``). ``ste`` is the backward of a
    binary activation: ``gated`` cancels the gradient beyond [-1, 1] (the paper), ``identity``
    passes all of it. ``pool`` places the ConvNet's max-pooling before batch norm and sign (the
    paper) or after the sign.
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
        _require(self.eps > 0, "optimizer.eps", "above 0", self.eps)


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
class Recipe:
    """How one of the paper's two code bases trained one dataset (paper, section 2)."""

    name: str
    dataset: DatasetName
    variant: Literal["paper", "released"]
    preprocess: Literal["scale", "global", "zca", "gcn-lcn"]
    network: NetworkSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    batch: int
    epochs: int

    def __post_init__(self) -> None:
        for key in ("batch", "epochs"):
            count = getattr(self, key)
            _require(count >= 1, f"recipe.{key}", "at least 1", count)


def _read_recipe(name: str, dataset: str) -> dict[str, Any]:
    path = RECIPE_FOLDER / f"{name}-{dataset}.yaml"
    if not path.exists():
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
    values = merge(_read_recipe(name, dataset), nest(overrides or {}))
    return from_mapping(Recipe, values, f"recipe {name}-{dataset}")


def get_mode(name: str) -> Mode:
    """Return the named mode, or raise a HarnessError that lists the names."""
    if name not in MODES:
        raise HarnessError(f"unknown mode {name!r}; allowed: {', '.join(MODES)}")
    return MODES[name]
