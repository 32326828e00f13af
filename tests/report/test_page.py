"""The page and the two commands."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.report.collect import collect
from harness.report.frames import Frames, read_frames
from harness.report.page import inline_svg, mark_labels
from harness.report.paper import load_paper
from harness.report.render import render

VOID = {"meta", "br", "link", "img", "hr", "use", "path"}


class Checked(HTMLParser):
    """Collects ids and outside addresses, and checks that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id" and value:
                self.ids.append(value)
            if key in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.addresses.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(frames, tmp_path_factory.mktemp("out")).read_text(encoding="utf-8")


def test_the_page_stands_alone_and_is_well_formed(page: str) -> None:
    checked = Checked()
    checked.feed(page)
    assert checked.open == []
    assert checked.addresses == ["https://arxiv.org/abs/1602.02830"]
    assert len(checked.ids) == len(set(checked.ids))
    assert "<script" not in page
    assert "@import" not in page
    used = set(re.findall(r"url\(#([^)]*)\)", page)) | set(re.findall(r'href="#([^"]*)"', page))
    assert used <= set(checked.ids)


def test_the_verdicts_come_first(page: str) -> None:
    tables = re.findall(r'<table class="(\w+)"', page)
    assert tables == [
        "claims", "claims", "claims", "table1", "filters", "ratios", "figure3", "memory", "costs",
        "energy", "agreement", "runs", "provenance",
    ]  # fmt: skip
    assert page.index('id="claims"') < page.index("<svg")


def test_the_page_shows_labels_holes_agreement_and_provenance(page: str) -> None:
    assert "<b>Stand-in data.</b> SVHN:" in page
    assert '<span class="tag stand-in">stand-in</span>' in page
    assert "epoch 6: the training loss is nan" in page
    assert "xnor-cpu 200,000/200,000" in page
    assert "c0ffeec0ff" in page
    assert "Python 3.11.7" in page or "python 3.11.7" in page
    assert page.count("<svg") == 15


def test_the_page_has_every_figure(frames: Frames, tmp_path: Path) -> None:
    page = render(frames, tmp_path).read_text(encoding="utf-8")
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert "roofline" in drawn
    assert {name for name in drawn if f'id="{name}-title"' in page} == drawn


def test_claims_without_a_result_are_folded_away(page: str) -> None:
    folds = re.findall(r"<details( open)?><summary>([^<]*) \((\d+)\)", page)
    assert [(is_open != "", heading.split(",")[0]) for is_open, heading, _ in folds] == [
        (True, "Judged"), (True, "Measured"), (False, "No result here"),
    ]  # fmt: skip
    assert sum(int(count) for _, _, count in folds) == len(load_paper().claims)


def test_what_a_number_rests_on_has_a_line_of_its_own() -> None:
    assert mark_labels("1.70 (n = 1; 1.46–1.97) [reduced]") == (
        '1.70 <span class="tag reduced">reduced</span> '
        '<span class="aside">(n = 1; 1.46–1.97)</span>'
    )


def test_rendering_twice_gives_the_same_files(frames: Frames, tmp_path: Path) -> None:
    pages = [render(frames, tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_results_with_nothing_but_a_bench(
    tmp_path: Path, write_bench: Callable[..., Path], benchmark_entry: Callable[..., Any]
) -> None:
    write_bench(tmp_path, "square-64", [benchmark_entry("xnor-cpu", 0.01, m=64)])
    collect(tmp_path)
    text = render(read_frames(tmp_path), tmp_path).read_text(encoding="utf-8")
    assert "No epoch has been trained yet." in text
    assert "Stand-in data" not in text


def test_the_commands_from_run_folders_to_page(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run(tmp_path, source="standin", epochs=2)
    runner = CliRunner()
    found = runner.invoke(app, ["collect", "--results", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "1 runs, 2 epochs, 0 evaluations, 0 layers, 0 predictions, 0 kernels" in found.output
    out = tmp_path / "out"
    found = runner.invoke(app, ["report", "--frames", str(tmp_path), "--out", str(out)])
    assert found.exit_code == 0, found.output
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "No kernel has been benched yet" in text
    assert (out / "claims.csv").exists()
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        f"{name}.{form}" for name in ("figure1-mnist", "flips", "trade") for form in ("png", "svg")
    ]  # fmt: skip
    tables = [path.suffix for path in (out / "tables").iterdir()]
    assert tables.count(".csv") == tables.count(".md") == tables.count(".tex") == 11


def test_labels_become_tags_and_text_is_escaped() -> None:
    assert mark_labels("1 < 2 [stand-in, reduced]") == (
        '1 &lt; 2 <span class="tag stand-in">stand-in</span> '
        '<span class="tag reduced">reduced</span>'
    )


def test_an_inlined_svg_has_its_own_ids() -> None:
    svg = (
        '<?xml version="1.0"?>\n<svg width="9pt" height="2pt" viewBox="0 0 9 2">'
        '<metadata>x</metadata><path id="a"/><use href="#a" clip-path="url(#b)"/></svg>'
    )
    assert inline_svg(svg, "f") == (
        '<svg viewBox="0 0 9 2" role="img" aria-labelledby="f-title">'
        '<path id="f-a"/><use href="#f-a" clip-path="url(#f-b)"/></svg>'
    )
