"""The paper's numbers and claims, loaded strictly from ``paper.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.errors import HarnessError

PAPER = Path(__file__).resolve().parent.parent / "paper.yaml"
Kind = Literal["error", "error-gap", "curve-gap", "kernel-ratio", "agreement", "memory", "none"]
_MEASURES: dict[str, set[str]] = {
    "error": {"dataset", "recipe", "mode"},
    "error-gap": {"dataset", "recipe", "mode", "against"},
    "curve-gap": {"dataset", "recipe", "mode", "against"},
    "kernel-ratio": {"group", "over", "device", "size"},
    "agreement": set(),
    "memory": set(),
    "none": {"why"},
}
_RULES = ("at-most", "at-least")
_NEEDS = ("official", "full")


@dataclass(frozen=True)
class System:
    """A row of Table 1: test errors in % by dataset, and which runs of ours stand beside it."""

    name: str
    errors: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    ours: dict[str, str] | None = None


@dataclass(frozen=True)
class Group:
    """A group of rows of Table 1."""

    group: str
    systems: tuple[System, ...]


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, how ours is measured and the rule for the verdict."""

    id: str
    where: str
    statement: str
    paper: float | None
    unit: str
    measure: dict[str, Any]
    verdict: dict[str, Any]
    needs: tuple[str, ...] = _NEEDS

    @property
    def rule(self) -> str:
        """The rule in words: ``at most 1.11 %``."""
        return f"{self.verdict['rule'].replace('-', ' ')} {self.verdict['bound']:g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Tell whether our value satisfies the rule."""
        bound = float(self.verdict["bound"])
        return value <= bound if self.verdict["rule"] == "at-most" else value >= bound


@dataclass(frozen=True)
class Paper:
    """All of ``paper.yaml``; ``facts`` are the sections that are quoted only."""

    link: str
    datasets: dict[str, str]
    table1: tuple[Group, ...]
    claims: tuple[Claim, ...]
    facts: dict[str, Any]


def load_paper(path: Path | None = None) -> Paper:
    """Load the paper's numbers.

    Raises:
        HarnessError: not YAML, an unknown key, measure or rule; the message names the claim.
    """
    path = path or PAPER
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HarnessError(f"{path} does not exist; the default is harness/paper.yaml") from error
    except yaml.YAMLError as error:
        raise HarnessError(f"{path} is not valid YAML: {error}") from error
    try:
        groups = tuple(_group(group) for group in values.pop("table1"))
        claims = tuple(_claim(claim) for claim in values.pop("claims"))
        link = values["paper"]["link"]
        return Paper(link, values.pop("datasets"), groups, claims, values)
    except (KeyError, TypeError, AttributeError) as error:
        raise HarnessError(f"{path}: {error}; compare with harness/paper.yaml") from error


def _group(values: dict[str, Any]) -> Group:
    return Group(values["group"], tuple(System(**system) for system in values["systems"]))


def _claim(values: dict[str, Any]) -> Claim:
    claim = Claim(**{**values, "needs": tuple(values.get("needs", _NEEDS))})
    kind = claim.measure.get("kind")
    if kind not in _MEASURES:
        raise HarnessError(
            f"claim {claim.id!r}: measure.kind {kind!r} is not one of {', '.join(_MEASURES)}"
        )
    keys = set(claim.measure) - {"kind"}
    if keys != _MEASURES[kind]:
        raise HarnessError(
            f"claim {claim.id!r}: measure {kind!r} takes the keys "
            f"{sorted(_MEASURES[kind])}, found {sorted(keys)}"
        )
    if claim.verdict.get("rule") not in _RULES:
        raise HarnessError(
            f"claim {claim.id!r}: verdict.rule {claim.verdict.get('rule')!r} is not one of "
            f"{', '.join(_RULES)}"
        )
    unknown = [need for need in claim.needs if need not in _NEEDS]
    if unknown or not isinstance(claim.verdict.get("bound"), int | float):
        raise HarnessError(
            f"claim {claim.id!r}: needs {list(claim.needs)} (allowed: {', '.join(_NEEDS)}), "
            f"bound {claim.verdict.get('bound')!r} (a number)"
        )
    return claim
