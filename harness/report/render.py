"""From frames to everything a reader sees: claims, tables, figures, the page."""

from pathlib import Path

from harness.files import atomic_path, write_text
from harness.report.ablations import Ablation, ablation_tables, ablations
from harness.report.claim_table import claims_table
from harness.report.claims import Judged, as_rows, judge_all
from harness.report.cost_tables import costs_table, energy_table, filters_table
from harness.report.figures import draw_all
from harness.report.frames import Frames
from harness.report.page import page_html
from harness.report.paper import Paper, load_paper
from harness.report.ratios import ratios_table
from harness.report.table import Table
from harness.report.table1 import table1
from harness.report.tables import (
    agreement_table,
    kernels_table,
    memory_table,
    provenance_table,
    runs_table,
)


def render(frames: Frames, out: Path) -> Path:
    """Write claims.csv, tables/, figures/ and report.html into ``out``; return the page's path.

    The same frames give the same bytes. Figures and ablations of an earlier call that no longer
    have data are removed.

    Raises:
        HarnessError: ``out`` cannot be written, or ``harness/paper.yaml`` is not valid.
    """
    paper = load_paper()
    judged = judge_all(paper, frames)
    _write_claims(judged, out / "claims.csv")
    varied = ablations(frames)
    tables = _tables(judged, paper, frames, varied)
    for table in tables.values():
        table.write(out / "tables")
    for path in (out / "tables").glob("ablation-*"):
        if path.stem not in tables:
            path.unlink()
    drawings = draw_all(frames.unlabelled(), paper, out / "figures", varied)
    page = out / "report.html"
    write_text(page, page_html(frames, paper, judged, tables, drawings))
    return page


def _tables(
    judged: list[Judged], paper: Paper, frames: Frames, varied: list[Ablation]
) -> dict[str, Table]:
    made = [
        claims_table(judged),
        table1(paper, frames.unlabelled()),
        ratios_table(frames, paper),
        kernels_table(frames),
        agreement_table(frames),
        memory_table(frames),
        costs_table(),
        energy_table(paper),
        filters_table(frames),
        runs_table(frames),
        provenance_table(frames),
        *ablation_tables(varied),
    ]
    return {table.name: table for table in made}


def _write_claims(judged: list[Judged], path: Path) -> None:
    import pandas as pd

    with atomic_path(path) as temporary:
        pd.DataFrame(as_rows(judged)).to_csv(temporary, index=False, lineterminator="\n")
