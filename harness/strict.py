"""Frozen dataclasses from plain mappings, strictly: every key known, every type checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from harness.errors import HarnessError

T = typing.TypeVar("T")


def as_mapping(value: Any) -> Any:
    """Return a spec as plain lists and dicts, ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [as_mapping(item) for item in value]
    return value


def from_mapping(cls: type[T], values: Any, where: str) -> T:
    """Build the frozen dataclass ``cls`` from a mapping; every key known, every type checked.

    Raises:
        HarnessError: an unknown or missing key or a value of the wrong type; the message gives
            the place, the value found and what is allowed.
    """
    if not isinstance(values, Mapping):
        raise HarnessError(f"{where}: expected a mapping, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields), key=str)
    if unknown:
        raise HarnessError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(fields)}")
    required = {
        n
        for n, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(values))
    if missing:
        raise HarnessError(f"{where}: key {missing[0]!r} is missing")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in values.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise HarnessError(f"{where}: {value!r} is not one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise HarnessError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(get_args(kind)[0], item, where) for item in value)
    if get_origin(kind) is dict:
        kind = dict
    assert not isinstance(kind, types.UnionType), kind
    if kind is float:
        value = _as_float(value)
    if type(value) is not kind:
        raise HarnessError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value


def _as_float(value: Any) -> Any:
    # YAML 1.1 reads 1e-3 as a string and 1 as an integer; people mean the number.
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mappings merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(typing.cast(Mapping[str, Any], below), value) if both else value
    return merged


def nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"network.hidden": v}`` into ``{"network": {"hidden": v}}``."""
    nested: dict[str, Any] = {}
    for path, value in dotted.items():
        if not isinstance(path, str):
            raise HarnessError(f"a setting's name must be text, found {path!r}")
        for key in reversed(path.split(".")):
            value = {key: value}
        nested = merge(nested, value)
    return nested
