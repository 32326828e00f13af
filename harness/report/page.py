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
from harness.report.tables import kernel_label, number
from harness.report.verdict import NOT_MEASURED, REPRODUCED

TEMPLATES = Path(__file__).resolve().parent / "templates"
_LABEL = re.compile(r"\[([^\[\]]*[a-z][^\[\]]*)\]")  # words; [3, 7] are numbers of a claim
_ASIDE = re.compile(r"^(.*?) (\(n = [^()]*\))(.*)$")


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
        counted=_counted(judged, paper),
        claims=_claims(judged, tables["claims"]),
        runs=dict(sorted(runs.items())),
        total=len(frames.runs),
        standins=_standins(frames, paper),
        tables=tables,
        errors=_of(drawings, "trade", "seeds"),
        curves=_of(drawings, "figure1", "flips"),
        filters=_of(drawings, "figure2"),
        inside=_of(drawings, "latent", "confusion", "calibration"),
        speed=_of(drawings, "figure3", "speed", "roofline"),
        ablations=[
            (_shown(drawing), tables[drawing.name])
            for drawing in drawings
            if drawing.name.startswith("ablation")
        ],
        agreement=_agreement(frames),
        agreement_standin=bool((frames.evaluations["source"] == "standin").any()),
        machines=_machines(frames),
        dates=_dates(frames),
        commits=sorted(commit[:10] for commit in set(frames.provenance["commit"]) - {""}),
    )


def mark_labels(text: str) -> Markup:
    """Return a cell with its bracketed labels, as in ``1.62 [stand-in, reduced]``, as tags.

    What a number rests on, ``(n = 3; 1.50–1.74)``, goes to a line of its own.
    """
    marked = _LABEL.sub(_tags, str(escape(text)))
    return Markup(_ASIDE.sub(r'\1\3 <span class="aside">\2</span>', marked))


def _tags(found: re.Match[str]) -> str:
    labels = found.group(1).split(", ")
    return " ".join(f'<span class="tag {label.split(" ")[-1]}">{label}</span>' for label in labels)


def _counted(judged: Sequence[Judged], paper: Paper) -> int:
    """Return how many claims are reproduced by counting a recipe's network, without a run."""
    ids = {claim.id for claim in paper.claims if claim.measure["kind"] == "counted"}
    return sum(claim.id in ids and claim.verdict == REPRODUCED for claim in judged)


def _claims(judged: Sequence[Judged], table: Table) -> list[tuple[str, bool, list[Any]]]:
    """Return (heading, whether to show it at once, rows): judged, on another scale, without."""
    groups: dict[str, list[Any]] = {"judged": [], "other": [], "none": []}
    for claim, row in zip(judged, table.rows, strict=True):
        none = "none" if claim.ours is None else "other"
        groups["judged" if claim.verdict != NOT_MEASURED else none].append(row)
    headings = {
        "judged": "Judged",
        "other": "Measured, but not on the paper's scale, data or device: no verdict",
        "none": "No result here",
    }
    return [(headings[key], key != "none", rows) for key, rows in groups.items() if rows]


def _machines(frames: Frames) -> list[str]:
    """Return ``amd-epyc-2c (AMD EPYC, 2 cores)``, with its GPU, for each machine."""
    found = []
    for machine, rows in frames.provenance.groupby("machine", sort=True):
        facts = [str(rows["cpu"].iloc[0]), f"{number(rows['cores'].iloc[0], 1)} cores"]
        facts += sorted(set(rows["gpu"]) - {""}) or ["no GPU"]
        found.append(f"{machine} ({', '.join(facts)})" if machine else "")
    return [text for text in found if text]


def _dates(frames: Frames) -> str:
    """Return the days of the records, ``2026-11-25 to 2026-11-26``; "" where none is dated."""
    times = [*frames.provenance["first"], *frames.provenance["last"]]
    days = sorted({str(time)[:10] for time in times} - {""})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


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
