"""The page: one HTML file that needs no network, no script and no other file."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.report.claims import VERDICTS, Judged
from harness.report.figures import Drawing
from harness.report.frames import Frames
from harness.report.paper import Paper
from harness.report.table import Table
from harness.report.tables import kernel_label

TEMPLATES = Path(__file__).resolve().parent / "templates"
_LABEL = re.compile(r"\[([^\[\]]*)\]")


def page_html(
    frames: Frames,
    paper: Paper,
    judged: Sequence[Judged],
    tables: Mapping[str, Table],
    drawings: Sequence[Drawing],
) -> str:
    """Return the page: verdicts first, then tables, figures and provenance."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["labels"] = mark_labels
    counts = Counter(claim.verdict for claim in judged)
    runs = Counter(frames.runs["status"])
    return environment.get_template("report.html.j2").render(
        link=paper.link,
        preset=", ".join(sorted(set(frames.runs["preset"]) - {""})) or "none",
        counts=[(verdict, counts[verdict]) for verdict in VERDICTS],
        runs=dict(sorted(runs.items())),
        total=len(frames.runs),
        standins=_standins(frames, paper),
        tables=tables,
        errors=_of(drawings, "trade", "seeds"),
        curves=_of(drawings, "figure1", "flips"),
        filters=_of(drawings, "figure2"),
        inside=_of(drawings, "latent", "confusion", "calibration"),
        speed=_of(drawings, "figure3", "speed"),
        ablations=[
            (_shown(drawing), tables[drawing.name])
            for drawing in drawings
            if drawing.name.startswith("ablation")
        ],
        agreement=_agreement(frames),
        agreement_standin=bool((frames.evaluations["source"] == "standin").any()),
        machines=sorted(set(frames.provenance["machine"]) - {""}),
        commits=sorted(commit[:10] for commit in set(frames.provenance["commit"]) - {""}),
    )


def mark_labels(text: str) -> Markup:
    """Return a cell with its bracketed labels, as in ``1.62 [stand-in, reduced]``, as tags."""
    return Markup(_LABEL.sub(_tags, str(escape(text))))


def _tags(found: re.Match[str]) -> str:
    labels = found.group(1).split(", ")
    return " ".join(f'<span class="tag {label.split(" ")[-1]}">{label}</span>' for label in labels)


def _standins(frames: Frames, paper: Paper) -> list[str]:
    names = set(frames.runs[frames.runs["source"] == "standin"]["dataset"])
    return [shown for name, shown in paper.datasets.items() if name in names]


def _of(drawings: Sequence[Drawing], *names: str) -> list[dict[str, Any]]:
    """Return the figures of a section of the page, in the order of ``names``."""
    return [_shown(d) for name in names for d in drawings if d.name.startswith(name)]


def _shown(drawing: Drawing) -> dict[str, Any]:
    return {
        "name": drawing.name,
        "title": drawing.title,
        "caption": drawing.caption,
        "svg": Markup(inline_svg(drawing.svg.read_text(encoding="utf-8"), drawing.name)),
    }


def inline_svg(svg: str, prefix: str) -> str:
    """Return an SVG file's element for use inside a page, its ids made unique by ``prefix``."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    # The page scales it: a fixed size in points would win over the style sheet.
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-labelledby="{prefix}-title">{rest}'


def _agreement(frames: Frames) -> list[tuple[str, str, bool]]:
    """Return, for each kernel, (name, ``30,000/30,000``, whether all agree)."""
    done = frames.evaluations[frames.evaluations["status"] == "done"]
    return [
        (
            kernel_label(kernel, device),
            f"{int(group['agree'].sum()):,}/{int(group['images'].sum()):,}",
            bool(group["agree"].sum() == group["images"].sum()),
        )
        for (kernel, device), group in done.groupby(["kernel", "device"], sort=True)
    ]
