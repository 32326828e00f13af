"""Benchmarking and reproducibility harness for Binarized Neural Networks (arXiv:1602.02830)."""

__version__ = "0.1.0"
