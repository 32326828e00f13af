"""The tidy frames between collect and report: their columns, and how they are read and written."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

RUN_KEYS = ("preset", "dataset", "source", "recipe", "label", "mode", "seed")

COLUMNS: dict[str, tuple[str, ...]] = {
    # One row a run. `label`: sets a variation of the recipe apart ("" = none). `changes`: what
    # differs from the recipe as published ("" = nothing). `other_weights`: a second way to test
    # the same training, `sign` or `mean` weights ("" = none), with its own selection and errors.
    "runs": (
        "preset", "dataset", "source", "data_variant", "recipe", "variant", "label", "mode", "seed",
        "status", "failure", "epochs", "best_epoch", "valid_error_pct", "test_error_pct",
        "train_seconds", "images_per_s", "device", "threads", "machine", "commit", "dirty",
        "network", "parameters", "binary_weights", "changes", "export", "export_reason",
        "bytes_packed", "bytes_float32", "macs", "bit_macs", "operations", "weight_bits",
        "test_images", "started", "finished", "method", "other_weights", "other_best_epoch",
        "other_valid_error_pct", "other_test_error_pct",
    ),
    # One row a run and epoch.
    "epochs": (
        *RUN_KEYS, "changes", "epoch", "lr", "train_loss", "train_error_pct", "valid_loss",
        "valid_error_pct", "test_error_pct", "flip_pct", "best", "seconds", "images_per_s",
        "other_valid_error_pct", "other_test_error_pct",
    ),
    # One row a run, kernel, its device and way to do the first layer.
    "evaluations": (
        *RUN_KEYS, "changes", "kernel", "device", "first_layer", "status", "reason", "images",
        "agree", "test_error_pct", "training_network_error_pct", "seconds", "images_per_s",
        "machine", "commit",
    ),
    # One row a run and layer, of the best weights. Lists are joined by spaces, so that the frames
    # stay small enough to be committed: `histogram` has the counts of equal bins over
    # [-bound, bound], `patterns` the signs of the first convolution's filters, outputs first.
    "layers": (
        *RUN_KEYS, "changes", "layer", "kind", "binary", "outputs", "fan_in", "weights", "plus_pct",
        "clipped_pct", "bound", "histogram", "filters", "distinct", "distinct_up_to_sign",
        "per_input", "per_input_up_to_sign", "patterns",
    ),
    # One row a run: `confusion` by rows of true classes; the rest over ten equal bins of the
    # predicted class's probability: counts, summed probability, right predictions.
    "predictions": (
        *RUN_KEYS, "changes", "network", "images", "test_errors", "test_loss", "confusion",
        "counts", "confidence", "correct", "ece_pct",
    ),
    # One row a machine, case and kernel; times in ms over the raw samples.
    "kernels": (
        "machine", "case", "group", "kernel", "device", "m", "n", "k", "threads", "includes",
        "caches", "status", "reason", "baseline", "samples", "median_ms", "p20_ms", "p80_ms",
        "tops", "bytes", "commit",
    ),
    # One row a machine and kernel: what was found before any clock; `products` compared in full,
    # `positions` of a one-hot bit along K.
    "correctness": (
        "machine", "kernel", "device", "status", "reason", "products", "positions", "seconds",
        "commit",
    ),
    # One row a machine, commit and stage: where the numbers come from.
    "provenance": (
        "stage", "machine", "cpu", "cores", "memory_gb", "gpu", "os", "commit", "dirty",
        "python", "torch", "numpy", "numba", "records", "first", "last",
    ),
}  # fmt: skip

_TEXT = {
    "preset", "dataset", "source", "data_variant", "recipe", "variant", "label", "mode", "status",
    "failure", "device", "machine", "commit", "network", "changes", "export", "export_reason",
    "started", "finished", "kernel", "first_layer", "reason", "case", "group", "includes", "caches",
    "stage", "method", "other_weights",
    "kind", "histogram", "patterns", "confusion", "counts", "confidence", "correct",
    "cpu", "gpu", "os", "python", "torch", "numpy", "numba", "first", "last",
}  # fmt: skip
_FLAG = {"dirty", "best", "baseline", "binary"}


@dataclass(frozen=True)
class Frames:
    """The tidy frames of a preset (or of a reference folder), columns as in ``COLUMNS``."""

    runs: "pd.DataFrame"
    epochs: "pd.DataFrame"
    evaluations: "pd.DataFrame"
    layers: "pd.DataFrame"
    predictions: "pd.DataFrame"
    kernels: "pd.DataFrame"
    correctness: "pd.DataFrame"
    provenance: "pd.DataFrame"

    def unlabelled(self) -> "Frames":
        """Return the frames without the runs that have a label: variations of a recipe."""
        plain = {
            name: frame[frame["label"] == ""]
            for name, frame in vars(self).items()
            if "label" in frame
        }
        return replace(self, **plain)


def write_frame(path: Path, name: str, rows: list[dict[str, object]]) -> None:
    """Write ``rows`` as a CSV with the frame's columns, atomically; a missing value is empty."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Return the header of a CSV file, and its rows by it.

    Raises:
        ValueError: the file is empty, no text, or cut short.
    """
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(error) from error
    if not text.endswith("\n") or any(None in row or None in row.values() for row in rows):
        raise ValueError("it is cut short" if text else "it is empty")
    return reader.fieldnames or (), rows


def _read(path: Path, name: str, required: bool) -> "pd.DataFrame":
    import pandas as pd

    columns = COLUMNS[name]
    if not path.exists():
        if required:
            raise HarnessError(f"{path} does not exist; write it with `bnn collect`")
        return _typed(pd.DataFrame(columns=list(columns), dtype=object))
    try:
        header, rows = read_rows(path)
    except ValueError as error:
        raise HarnessError(f"{path} is not a CSV frame ({error}); run `bnn collect`") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise HarnessError(
            f"{path} lacks the column {missing[0]!r}; found: {', '.join(header)}; "
            "write it again with `bnn collect`"
        )
    frame = pd.DataFrame(rows, columns=list(header), dtype=object)
    try:
        return _typed(frame[list(columns)])
    except ValueError as error:
        raise HarnessError(f"{path}: {error}; write it again with `bnn collect`") from error


def _typed(frame: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    typed = {}
    for column in frame:
        values = frame[column]
        if column in _TEXT:
            typed[column] = values.astype(object)
        elif column in _FLAG:
            typed[column] = values.map({"True": True, "False": False}).astype(object)
        else:
            typed[column] = pd.to_numeric(values.replace("", None)).astype(float)
    return pd.DataFrame(typed)


def empty_frames() -> Frames:
    """Return frames without a row."""
    import pandas as pd

    return Frames(
        **{
            name: _typed(pd.DataFrame(columns=list(columns), dtype=object))
            for name, columns in COLUMNS.items()
        }
    )


def read_frames(folder: Path) -> Frames:
    """Read a folder of frames. Only one of runs and kernels must be there.

    Text columns hold "" where nothing is known, numbers NaN.

    Raises:
        HarnessError: neither frame exists, or one is not what ``bnn collect`` writes.
    """
    folder = Path(folder)
    if not (folder / "runs.csv").exists() and not (folder / "kernels.csv").exists():
        raise HarnessError(
            f"{folder} holds neither runs.csv nor kernels.csv; write them with "
            f"`bnn collect --results {folder}`"
        )
    needs_epochs = (folder / "runs.csv").exists()
    return Frames(
        **{
            name: _read(folder / f"{name}.csv", name, name == "epochs" and needs_epochs)
            for name in COLUMNS
        }
    )
