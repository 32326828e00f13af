"""The ablations: groups of runs that differ in one factor or cross a few (``ablations.yaml``)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.errors import HarnessError
from harness.spec import MODES, DatasetName, get_mode
from harness.strict import from_mapping

FILE = Path(__file__).resolve().parent / "ablations.yaml"


@dataclass(frozen=True)
class Level:
    """One level of a factor: what it changes. The first level of a factor changes nothing."""

    level: str
    label: str = ""
    weights: Literal["", "det", "stoch"] = ""
    activations: Literal["", "det", "stoch"] = ""
    set: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """True where the level is the recipe's own."""
        return not (self.label or self.weights or self.activations or self.set)


@dataclass(frozen=True)
class Factor:
    """What is varied, over two levels or more."""

    factor: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Cell:
    """One combination of levels: a run but for its seed and the size of its network."""

    levels: tuple[str, ...]
    label: str
    mode: str
    settings: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Group:
    """One open question, with the recipe and mode that its levels depart from."""

    name: str
    title: str
    question: str
    where: str
    dataset: DatasetName
    recipe: str
    mode: str
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        get_mode(self.mode)
        for factor in self.factors:
            if len(factor.levels) < 2 or not factor.levels[0].is_plain:
                raise HarnessError(
                    f"ablation {self.name!r}, factor {factor.factor!r}: expected two levels or "
                    "more, the first without changes"
                )

    def cells(self) -> list[Cell]:
        """Return the product of the factors' levels; the first cell is the baseline."""
        return [
            self._cell(levels) for levels in itertools.product(*(f.levels for f in self.factors))
        ]

    def _cell(self, levels: Sequence[Level]) -> Cell:
        base = get_mode(self.mode)
        wanted = (base.weights, base.activations)
        settings: dict[str, Any] = {}
        for level in levels:
            wanted = (level.weights or wanted[0], level.activations or wanted[1])
            settings |= level.set
        modes = [m.name for m in MODES.values() if (m.weights, m.activations) == wanted]
        if not modes:
            raise HarnessError(
                f"ablation {self.name!r}: no mode has weights {wanted[0]!r} and activations "
                f"{wanted[1]!r}; modes: {', '.join(MODES)}"
            )
        return Cell(
            levels=tuple(level.level for level in levels),
            label="-".join(level.label for level in levels if level.label),
            mode=modes[0],
            settings=tuple(sorted(settings.items())),
        )


@cache
def load_groups() -> dict[str, Group]:
    """Return the groups of ``harness/ablations.yaml`` by name.

    Raises:
        HarnessError: an unknown or missing key, or a value of the wrong type.
    """
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    groups = [from_mapping(Group, entry, f"{FILE.name}[{i}]") for i, entry in enumerate(entries)]
    return {group.name: group for group in groups}


def choose(names: Sequence[str]) -> list[Group]:
    """Return the named groups.

    Raises:
        HarnessError: an unknown name; the message lists the names.
    """
    groups = load_groups()
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise HarnessError(f"unknown ablation {unknown[0]!r}; allowed: {', '.join(groups)}")
    return [groups[name] for name in names]


def entries(ablations: Mapping[str, Any], only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the ``runs`` entries of a preset's ``ablations``, a cell each.

    ``ablations`` holds ``groups``, ``seeds``, ``threads`` and, under a dataset's name, the settings
    that all of its runs share. ``only`` picks some of the groups.

    Raises:
        HarnessError: an unknown group, or one in ``only`` that the preset does not have.
    """
    missing = [name for name in only if name not in ablations["groups"]]
    if missing:
        raise HarnessError(
            f"the preset has no ablation {missing[0]!r}; it has {', '.join(ablations['groups'])}"
        )
    return [
        {
            "dataset": group.dataset,
            "recipe": group.recipe,
            "modes": [cell.mode],
            "label": cell.label,
            "seeds": ablations["seeds"],
            "threads": ablations["threads"],
            "set": {**ablations.get(group.dataset, {}), **dict(cell.settings)},
        }
        for group in choose(only or ablations["groups"])
        for cell in group.cells()
    ]
