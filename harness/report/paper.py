"""The paper's numbers and claims, loaded strictly from ``paper.yaml``."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.errors import HarnessError

PAPER = Path(__file__).resolve().parent.parent / "paper.yaml"
_GAP = {"dataset", "recipe", "mode", "against"}
_MEASURES: dict[str, set[str]] = {
    "error": {"dataset", "recipe", "mode"},
    "error-gap": _GAP,
    "curve-gap": _GAP,
    "time-ratio": _GAP,
    "recipe-gap": {"dataset", "first", "second"},
    "quoted-gap": {"dataset", "runs", "quoted"},
    "setting-gap": {"setting", "value", "against"},
    "filters": {"dataset", "recipe", "mode", "count", "of"},
    "kernel-ratio": {"group", "over", "device", "size"},
    "network-ratio": {"over", "device", "size", "width"},
    "kernel-spread": {"dataset"},
    "agreement": {"first_layer"},
    "memory": set(),
    "counted": {"quantity", "recipe", "dataset"},
    "none": {"why"},
}
_RULES: dict[str, set[str]] = {
    "near": {"tolerance", "better"},
    "at-most": {"bound"},
    "at-least": {"bound"},
    "exactly": set(),
    "none": set(),
}
_NEEDS = ("official", "full")


@dataclass(frozen=True)
class System:
    """A row of Table 1: test errors in % by dataset, and which runs of ours stand beside it.

    ``uncertain`` says what is not known of the paper's run, "" where nothing is open.
    """

    name: str
    errors: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    ours: dict[str, str] | None = None
    uncertain: str = ""


@dataclass(frozen=True)
class Group:
    """A group of rows of Table 1."""

    group: str
    systems: tuple[System, ...]


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, how ours is measured and the rule for the verdict.

    ``uncertain`` says what the paper leaves open about it, "" where nothing is.
    """

    id: str
    where: str
    statement: str
    paper: float | None
    unit: str
    measure: dict[str, Any]
    verdict: dict[str, Any]
    needs: tuple[str, ...] = _NEEDS
    reduced: Literal["", "partly"] = ""
    uncertain: str = ""

    @property
    def band(self) -> tuple[float, float]:
        """The values near the paper's: ``paper ± tolerance``, to the twelfth digit."""
        assert self.paper is not None
        reach = float(self.verdict["tolerance"])
        return round(self.paper - reach, 12), round(self.paper + reach, 12)

    @property
    def rule(self) -> str:
        """The rule in words: ``0.96 ± 0.15 %``, ``at most 2 points``."""
        kind = self.verdict["rule"]
        if kind == "none":
            return "–"
        if kind == "near":
            return f"{self.paper:g} ± {self.verdict['tolerance']:g} {self.unit}"
        if kind == "exactly":
            return f"exactly {self.paper:,.10g} {self.unit}"
        return f"{kind.replace('-', ' ')} {self.verdict['bound']:g} {self.unit}"


@dataclass(frozen=True)
class Paper:
    """All of ``paper.yaml``; ``facts`` are the sections that are quoted only."""

    link: str
    datasets: dict[str, str]
    table1: tuple[Group, ...]
    claims: tuple[Claim, ...]
    facts: dict[str, Any]


@cache
def load_facts() -> dict[str, Any]:
    """Return the facts of ``paper.yaml``: the sections that are quoted only."""
    return load_paper().facts


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
    _check_keys(claim, "measure", "kind", _MEASURES)
    _check_keys(claim, "verdict", "rule", _RULES, {"why"})
    rule = claim.verdict["rule"]
    for key in _RULES[rule] - {"better"}:
        if not isinstance(claim.verdict[key], int | float):
            raise HarnessError(f"claim {claim.id!r}: verdict.{key} must be a number")
    if (rule == "none") != (claim.measure["kind"] == "none"):
        raise HarnessError(f"claim {claim.id!r}: rule none and measure none go together")
    if rule in ("near", "exactly") and claim.paper is None:
        raise HarnessError(f"claim {claim.id!r}: rule {rule!r} needs a number of the paper's")
    if claim.verdict.get("better", "lower") not in ("lower", "higher"):
        raise HarnessError(
            f"claim {claim.id!r}: verdict.better {claim.verdict['better']!r} is not one of lower, "
            "higher"
        )
    unknown = [need for need in claim.needs if need not in _NEEDS]
    if unknown or claim.reduced not in ("", "partly"):
        raise HarnessError(
            f"claim {claim.id!r}: needs {list(claim.needs)} (allowed: {', '.join(_NEEDS)}), "
            f"reduced {claim.reduced!r} (allowed: partly)"
        )
    return claim


def _check_keys(
    claim: Claim,
    part: str,
    name: str,
    allowed: dict[str, set[str]],
    besides: set[str] = set(),  # noqa: B006  never changed
) -> None:
    values = getattr(claim, part)
    kind = values.get(name)
    if kind not in allowed:
        raise HarnessError(
            f"claim {claim.id!r}: {part}.{name} {kind!r} is not one of {', '.join(allowed)}"
        )
    keys, wanted = set(values) - {name}, allowed[kind] | besides
    if keys != wanted:
        raise HarnessError(
            f"claim {claim.id!r}: {part} {kind!r} takes the keys {sorted(wanted)}, found "
            f"{sorted(keys)}"
        )
