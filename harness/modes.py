"""Binarization modes, by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from harness.errors import HarnessError

Binarization = Literal["real", "det", "stoch"]


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


def get_mode(name: str) -> Mode:
    """Return the named mode, or raise a HarnessError that lists the names."""
    if name not in MODES:
        raise HarnessError(f"unknown mode {name!r}; allowed: {', '.join(MODES)}")
    return MODES[name]


def in_order(modes: Iterable[str]) -> list[str]:
    """Return the modes without repeats in the order of ``MODES``, unknown ones behind, by name."""
    found = set(modes)
    return [mode for mode in MODES if mode in found] + sorted(found - set(MODES))
