"""Learning rules: back-propagation through the mode, and the prior systems of Table 1."""

from harness.methods.base import Method
from harness.methods.build import build_method

__all__ = ["Method", "build_method"]
