"""Times and sizes in words, errors in a line."""

import textwrap

SAID = 400  # characters of an error with its type; a compiler's repeats the program


def hours_text(hours: float) -> str:
    """Return ``12 s``, ``4.2 min``, ``3.1 h`` or ``12 days``."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.1f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def bytes_text(count: float) -> str:
    """Return ``870 kB``, ``3.4 MB`` or ``12.0 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def one_line(error: BaseException) -> str:
    """Return what an error says in at most 200 characters; where it says nothing, its name."""
    return textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")


def said(error: BaseException) -> str:
    """Return an error's type and words as one line.

    >>> said(RuntimeError("CUDA error: an illegal instruction\\nFor debugging consider ..."))
    'RuntimeError: CUDA error: an illegal instruction For debugging consider ...'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:SAID]
