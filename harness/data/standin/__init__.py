"""Stand-ins: generated look-alikes of the datasets, the default data of a fresh clone."""

from harness.data.standin.write import COUNTS, write_standin

__all__ = ["COUNTS", "write_standin"]
