"""Kernels against each other: cases as data, a gate before the clock, raw samples kept."""
