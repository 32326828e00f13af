"""Datasets: official formats, download, content check, stand-ins, splits and preprocessing.

The names below are imported when first used, so that ``bnn --help`` does not wait for NumPy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.dataset import Dataset, load_dataset
    from harness.data.formats import Images

__all__ = ["Dataset", "Images", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.data import dataset

    return getattr(dataset, name)
