"""Where the numbers come from, gathered from the records' provenance."""

from collections.abc import Mapping
from typing import Any

_MACHINE = ("cpu", "cores", "memory_gb", "gpu", "os")
_VERSIONS = ("python", "torch", "numpy", "numba")


class Origins:
    """One row for each stage, machine, commit and set of versions, with counts and dates."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(
        self,
        stage: str,
        provenance: Mapping[str, Any] | None,
        first: str | None,
        last: str | None,
    ) -> None:
        """Count one record; ``first`` and ``last`` are ISO times of its start and end."""
        found = provenance or {}
        machine, versions = found.get("machine") or {}, found.get("versions") or {}
        row = {
            "stage": stage,
            "machine": machine.get("name"),
            **{key: machine.get(key) for key in _MACHINE},
            "commit": found.get("commit"),
            "dirty": found.get("dirty"),
            **{key: versions.get(key) for key in _VERSIONS},
        }
        kept = self._rows.setdefault(tuple(row.values()), {**row, "records": 0})
        kept["records"] += 1
        kept["first"] = min(filter(None, (kept.get("first"), first)), default=None)
        kept["last"] = max(filter(None, (kept.get("last"), last)), default=None)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows in the order in which they first appeared."""
        return list(self._rows.values())
