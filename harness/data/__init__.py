"""Datasets: official formats, download, content check, stand-ins, splits and preprocessing."""

from harness.data.dataset import Dataset, load_dataset
from harness.data.formats import Images

__all__ = ["Dataset", "Images", "load_dataset"]
