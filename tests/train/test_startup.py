"""What a training process loads: seconds of start-up that a short run would pay for nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from harness.cli import app
from typer.testing import CliRunner
found = CliRunner().invoke(app, sys.argv[1:])
assert found.exit_code == 0, found.output
print(sorted({"torch._dynamo", "mlflow", "pandas", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("recipe", ["theano", "torch7"])
def test_training_loads_no_compiler_and_no_tracking(
    recipe: str, data_root: Path, tmp_path: Path
) -> None:
    settings = ["network.hidden=[8]", "epochs=1", "network.input_dropout=0.0"]
    command = [
        "train",
        "--dataset",
        "mnist",
        "--data",
        str(data_root),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--recipe", recipe, "--device", "cpu", "--threads", "1"]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
