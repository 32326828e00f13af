"""What the pages for readers name exists: links, and files of this repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = {"kernels/cpu/table.py"}  # the file that CONTRIBUTING.md has one write
PATH = re.compile(r"`((?:harness|kernels|workflows|tests|docs)/[\w./-]*\w)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert set(missing) <= EXAMPLES


def test_the_map_of_cpu_kernels_names_each_module() -> None:
    folder = ROOT / "kernels" / "cpu"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(re.findall(r"``(\w+)``", (folder / "__init__.py").read_text())) == modules
