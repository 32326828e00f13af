"""The help of the command line, on a terminal of 80 columns."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app

GROUPS = ("data", "track")
COMMANDS = [(name,) for name in get_command(app).commands if name not in GROUPS]  # type: ignore[attr-defined]
COMMANDS += [("data", "fetch"), ("data", "verify"), ("data", "standin")]
COMMANDS += [("track", "init"), ("track", "sync")]


def help_of(*words: str) -> str:
    found = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("group", [(), ("data",), ("track",)], ids=" ".join)
def test_no_summary_of_a_command_is_cut_off(group: tuple[str, ...]) -> None:
    assert "..." not in help_of(*group).partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_on_one_line(command: tuple[str, ...]) -> None:
    text = help_of(*command)
    examples = re.findall(r"^      (?:until )?(bnn .*)$", text, re.MULTILINE)
    assert any(example.startswith(f"bnn {' '.join(command)}") for example in examples)
    assert not re.search(r"^ {6}--", text, re.MULTILINE)  # none goes on in a second line
