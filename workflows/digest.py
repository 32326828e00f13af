"""A digest of the code that a stage depends on, so that editing a module re-runs its jobs.

Snakemake notices a changed command, not a changed module behind it: every rule carries the digest
of its stage's module and of all modules of this project that it imports, transitively.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "kernels")
# Deciding no number: a changed wording of an error or a new way to mirror a run re-trains nothing.
PASSED_OVER = ("harness.track", "harness.cli", "harness.provenance", "harness.train.progress")


def _file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(sorted(name for name in found if name.split(".")[0] in PACKAGES))


def modules_of(*entries: str) -> dict[str, Path]:
    """Return the project's modules that ``entries`` import, themselves included, by name.

    Raises:
        ValueError: an entry is no module of the project.
    """
    found: dict[str, Path] = {}
    waiting = list(entries)
    for entry in entries:
        if _file_of(entry) is None:
            raise ValueError(f"{entry!r} is no module below {ROOT}")
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found or name.startswith(PASSED_OVER):
            continue
        found[name] = path
        waiting += _imports(path)
    return found


@cache
def code_digest(*entries: str, data: tuple[str, ...] = ()) -> str:
    """Return 16 hexadecimal digits over the sources that ``entries`` depend on.

    CUDA sources count as part of the modules that they lie beside. ``data`` are files beside them
    that the code reads, as patterns from the project's root.
    """
    digest = hashlib.sha256()
    modules = modules_of(*entries)
    folders = {path.parent for path in modules.values()}
    beside = [path for folder in folders for path in folder.glob("*.cu")]
    read = [path for pattern in data for path in ROOT.glob(pattern) if path.is_file()]
    files = {path.relative_to(ROOT).as_posix(): path for path in (*beside, *read)}
    for _, path in sorted({**modules, **files}.items()):
        relative = path.relative_to(ROOT).as_posix()
        digest.update(relative.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
