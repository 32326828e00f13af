"""Which borders of a map a position touches: the classes of ``kernels.conv.border_classes``."""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def"

from kernels.cpu.jit import jit


@jit()
def touched(y, x, height, width):
    """Return the class, 0 to 15, of row y and column x."""
    return (y == 0) + 2 * (y == height - 1) + 4 * (x == 0) + 8 * (x == width - 1)
