"""Tells official data from a stand-in by its content, and refuses anything else."""

from pathlib import Path

from harness.data import digests
from harness.data.sources import Content, mend_hint
from harness.errors import HarnessError

_DIGEST_OF = {
    "mnist": "md5 of the gunzipped file",
    "cifar10": "SHA-256 over the sorted SHA-256 digests of the records",
    "svhn": "md5 of the file",
}


def identify(dataset: str, content: Content, root: Path) -> str:
    """Return the source of what was read: ``official`` or ``standin``.

    Raises:
        HarnessError: a unit has neither the published content nor the stand-in's, or the two
            are mixed in one folder.
    """
    sources = {
        unit: _source_of(dataset, unit, found, content.unit_files[unit], root)
        for unit, found in content.digests.items()
    }
    if len(set(sources.values())) > 1:
        listed = ", ".join(f"{content.unit_files[u]} ({u}) is {s}" for u, s in sources.items())
        raise HarnessError(
            f"{dataset}: official and stand-in files are mixed: {listed}; expected one source; "
            f"remove {root / dataset} and {mend_hint(dataset, root)}"
        )
    return next(iter(sources.values()))


def _source_of(dataset: str, unit: str, found: str, path: Path, root: Path) -> str:
    for source, known in (("official", digests.OFFICIAL), ("standin", digests.STANDIN)):
        if known[dataset].get(unit) == found:
            return source
    raise HarnessError(
        f"{path}: the content of {unit} is not the publisher's: expected "
        f"{digests.OFFICIAL[dataset][unit]} ({_DIGEST_OF[dataset]}) or the stand-in's "
        f"{digests.STANDIN[dataset].get(unit)}, found {found}; {mend_hint(dataset, root)}"
    )
