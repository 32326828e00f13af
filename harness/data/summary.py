"""What `bnn data verify` shows of a dataset."""

from harness.data.dataset import Dataset

_ORDER = {True: "the publisher's", False: "not the publisher's", None: "not known"}


def print_summary(dataset: Dataset) -> None:
    """Print the images of each split and the digests that were checked, as tables."""
    from rich.console import Console
    from rich.table import Table

    console, manifest = Console(), dataset.manifest
    images = Table(
        title=f"{dataset.name}: {dataset.source}, {dataset.variant}", title_justify="left"
    )
    for column in ("split", "images", "shape", "per class"):
        images.add_column(column)
    for split, part in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test)):
        counts = [int((part.labels == label).sum()) for label in range(manifest["classes"])]
        shape = " x ".join(map(str, part.pixels.shape[1:]))
        images.add_row(split, f"{len(part):,}", shape, f"{min(counts):,} to {max(counts):,}")
    console.print(images)
    checked = Table("content", "digest", title="verified", title_justify="left")
    for unit, digest in manifest["content"].items():
        checked.add_row(unit, digest)
    console.print(checked)
    console.print(
        f"validation: {manifest['split']['rule']}; split {manifest['split']['digest'][:16]}"
    )
    console.print(f"order of the images: {_ORDER[manifest['original_order']]}")
