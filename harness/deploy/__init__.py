"""Packed networks: folding, the model file, their run time and the check against training."""
