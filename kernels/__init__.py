"""Products of ±1 matrices: one bit convention, plain references, and kernels behind a registry."""
