"""Settings of every test process."""

import os

# Before torch is imported: two threads on busy cores wait for each other longer than one computes,
# and sums are the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
