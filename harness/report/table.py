"""A table and its three written forms: Markdown, LaTeX (booktabs) and tidy CSV."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.files import atomic_path, write_text

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: "\\" + c for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "³": r"$^3$",
        "–": "--",
        "—": "---",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "[": "{[}",  # after a line end LaTeX takes it for an argument
        "]": "{]}",
    }
)


@dataclass(frozen=True)
class Table:
    """A table for readers (``header``, ``rows`` of text) and for programs (``data``).

    ``numeric`` are the columns set flush right. A row of one cell is a group's heading.
    ``caption`` says what is shown, with n, machine and labels; ``notes`` follow the table.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    data: list[dict[str, Any]]
    caption: str = ""
    notes: tuple[str, ...] = ()
    numeric: frozenset[int] = field(default_factory=frozenset)

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        rules = ["---:" if i in self.numeric else "---" for i in range(len(self.header))]
        lines = [f"**{self.title}.** {self.caption}".strip(), "", _md_row(self.header)]
        lines.append(_md_row(rules))
        for row in self.rows:
            cells = (f"*{row[0]}*",) + ("",) * (len(self.header) - 1) if len(row) == 1 else row
            lines.append(_md_row(cells))
        if not self.rows:
            lines.append(_md_row(("nothing measured yet", *[""] * (len(self.header) - 1))))
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def latex(self) -> str:
        """Return the table as a LaTeX ``table`` with booktabs rules."""
        width = len(self.header)
        align = "".join("r" if i in self.numeric else "l" for i in range(width))
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(self._full_caption())}}}"]
        lines += [rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, self.header)) + r" \\", r"\midrule"]
        for row in self.rows:
            if len(row) == 1:
                cell = rf"\textit{{{_tex(row[0])}}}"
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{{cell}}} \\")
            else:
                lines.append(" & ".join(map(_tex, row)) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"

    def _full_caption(self) -> str:
        return " ".join([f"{self.title}.", self.caption, *self.notes]).strip()

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>.md``, ``.tex`` and ``.csv`` into ``folder``; return the paths."""
        import pandas as pd

        paths = [folder / f"{self.name}.{form}" for form in ("md", "tex", "csv")]
        write_text(paths[0], self.markdown())
        write_text(paths[1], self.latex())
        with atomic_path(paths[2]) as temporary:
            columns = None if self.data else list(self.header)
            pd.DataFrame(self.data, columns=columns).to_csv(
                temporary, index=False, lineterminator="\n"
            )
        return paths


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tex(text: str) -> str:
    return text.translate(LATEX)
