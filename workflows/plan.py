"""Names fit for the workflow's files, and what is wrong with a value, in a line.

What a preset runs is in ``harness.preset``.
"""

import re
from typing import Any


def what_is_wrong(where: str, error: Any) -> str:
    """Return a ``jsonschema.ValidationError`` as a line: where, what, and the allowed keys."""
    place = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in error.path)
    known = error.schema.get("properties", {}) if error.validator == "additionalProperties" else {}
    allowed = f"; allowed: {', '.join(known)}" if known else ""
    at = f"{where} {place.lstrip('.')}".rstrip()
    return f"{at}: {error.message}{allowed}"


def safe_name(name: str) -> str:
    """Return ``name`` where it is fit for a path.

    Raises:
        ValueError: it holds anything but letters, digits, ``_`` and ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not fit for a file name: use letters, digits, '_' and '-'")
    return name
