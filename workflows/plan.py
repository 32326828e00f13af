"""Names fit for the workflow's files. What a preset runs is in ``harness.preset``."""

import re


def safe_name(name: str) -> str:
    """Return ``name`` where it is fit for a path.

    Raises:
        ValueError: it holds anything but letters, digits, ``_`` and ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not fit for a file name: use letters, digits, '_' and '-'")
    return name
