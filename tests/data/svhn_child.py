"""Load a made SVHN in a child process and print its peak memory in bytes, before and at the end.

python svhn_child.py FOLDER [KIND]: FOLDER/svhn holds the three .mat files. They count as official,
whatever they hold. Where the images are many, run it on real sizes by make_svhn.py.
"""

import json
import resource
import sys
from pathlib import Path

import scipy.io  # with all that is imported on the way, before the first peak
import scipy.ndimage  # noqa: F401
import torch

from harness.data import digests
from harness.data.dataset import load_dataset
from harness.data.preprocess import fit
from harness.spec import load_recipe
from harness.train import inputs


def peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process held before it became this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    scale = 1 if sys.platform == "darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(root: Path, kind: str) -> None:
    for unit in digests.SVHN_BYTES:
        path = root / "svhn" / unit
        digests.SVHN_BYTES[unit] = path.stat().st_size
        digests.OFFICIAL["svhn"][unit] = digests.md5_file(path)
    inputs.HELD_BYTES = 0  # as for the 598,388 images of the real one
    before = peak()
    dataset = load_dataset("svhn", root)
    recipe = load_recipe("torch7-released", "svhn")
    assert recipe.preprocess == "gcn-lcn"
    preprocessor = fit(kind, dataset.train.pixels)
    train = inputs.resident(dataset.train, preprocessor, False, torch.device("cpu"))
    batch, _ = train.batch(torch.randperm(len(train))[: recipe.batch])
    print(
        json.dumps(
            {
                "before": before,
                "after": peak(),
                "source": dataset.source,
                "counts": dataset.manifest["counts"],
                "batch": list(batch.shape),
                "finite": bool(batch.isfinite().all()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "gcn-lcn")
