"""MLflow mirrors the run folders: live while it answers, replayed from files when it did not.

The truth of a run is in its folder (``run.json``, ``metrics.jsonl``). MLflow is a view of it that
can be thrown away and rebuilt with ``bnn track sync``. Nothing here is imported by training
except :class:`Mirror`, which costs nothing where MLflow is not installed or not asked for.
"""

from harness.track.commands import app
from harness.track.mirror import Mirror, Tracking

__all__ = ["Mirror", "Tracking", "app"]
