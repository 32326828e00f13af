"""Kernels for NVIDIA GPUs in Triton, each beside its host function and its ``Kernel`` class."""
