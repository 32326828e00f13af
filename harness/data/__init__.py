"""Datasets: official formats, download, content check, stand-ins, splits and preprocessing."""
