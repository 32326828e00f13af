"""One piece of a preset: what is left of its runs, one after the other, until the time is over."""

import gc
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.nn.costs import layer_costs
from harness.report.collect import collect
from harness.run.clock import Clock
from harness.run.estimate import Estimate
from harness.run.keep import folder_bytes, forget_records, keep, kept_run, needed_elsewhere
from harness.run.setup import Setup
from harness.run.show import Lines, say
from harness.run.stages import examine
from harness.spec import get_mode
from harness.text import bytes_text, hours_text
from harness.train.checkpoint import CHECKPOINT
from harness.train.commands import FAILED_RUN
from harness.train.loop import Interrupted
from harness.train.record import RUN, finished_run
from harness.train.run import run_training
from kernels.cpu.threads import available_threads, set_threads

GO_ON = 75  # EX_TEMPFAIL: not all is done, and the same command goes on
# Set aside of the time: frames at the end, with pandas' import; two checkpoints to a slow disk
# (weights, two moments and the best weights in float32, a byte of sign), as the alarm may come just
# when one begins; the validation of an epoch, half as long again as the longest seen.
FRAMES_SECONDS = 5.0
STATE_BYTES, DISK_BYTES_PER_S = 17, 100e6
CHECKPOINTS = 2
CLOSING_SHARE = 1.5
# The first step compiles kernels, and no stop ends it: a run is not begun just before the end.
START_SECONDS = 40.0


class Piece:
    """Trains, examines and keeps the runs of a preset; :meth:`run` returns the exit status."""

    def __init__(
        self, setup: Setup, clock: Clock, threads: int = 0, checkpoint_seconds: float = 60.0
    ) -> None:
        self.setup, self.clock = setup, clock
        self.threads, self.checkpoint_seconds = threads, checkpoint_seconds
        self.estimate = Estimate(setup)
        self.open: list[str] = []  # runs that are not kept whole yet
        self.failed: list[str] = []  # diverged: run.json says so
        self.errors: list[str] = []  # tried again by the next piece
        self.gained = False

    def run(self) -> int:
        """Go through what is left, and return the exit status.

        Raises:
            HarnessError: the time is over before a single step could be made.
        """
        self._look()
        signal_number = None
        try:
            with self.clock:
                for name in list(self.open):
                    self._run_one(name)
        except Interrupted as stop:
            signal_number = stop.number
        self._keep_unfinished()
        return self._close(signal_number)

    def _look(self) -> None:
        setup = self.setup
        for name in setup.jobs:
            run = kept_run(setup, name)
            if run is None:
                self.open.append(name)
                continue
            self.estimate.learn(name, run["train_seconds"], run["epochs_done"])
            if run["status"] == "failed":
                self.failed.append(name)
        data = ", ".join(f"{m['source']} {name}" for name, m in setup.manifests.items())
        done, left = len(setup.jobs) - len(self.open), self.clock.left()
        time_left = "" if left == float("inf") else f"; {hours_text(left / 3600)} for this piece"
        say(
            f"preset {setup.name}: {done} of {len(setup.jobs)} runs are there; {data}; "
            f"{setup.device.type}{time_left}"
        )

    def _run_one(self, name: str) -> None:
        try:
            self._train_and_examine(name)
        except (HarnessError, torch.OutOfMemoryError) as error:
            say(f"{self._title(name)} error: {error}")
            self.errors.append(name)
            return
        finally:
            gc.collect()
            if self.setup.device.type == "cuda":
                torch.cuda.empty_cache()
        with self.clock.undisturbed():
            keep(self.setup.work_folder(name), self.setup.out_folder(name))
            self._collect()
            self.open.remove(name)
            self.gained = True
        self.clock.check()

    def _train_and_examine(self, name: str) -> None:
        setup, title = self.setup, self._title(name)
        run = self._train(name, title)
        self.clock.check()
        if run["status"] == "failed":
            say(f"{title} failed: {run['failure']['reason']}")
            self.failed.append(name)
        else:
            say(
                f"{title} best epoch {run['best_epoch']}: validation error "
                f"{run['valid_error_pct']:.2f} %, test error {run['test_error_pct']:.2f} %"
            )
        self.estimate.learn(name, run["train_seconds"], run["epochs_done"])
        # A stop may have come between a run's record and the end of its checkpoint.
        (setup.work_folder(name) / CHECKPOINT).unlink(missing_ok=True)
        self.clock.reserve(FRAMES_SECONDS)
        set_threads(self.threads or available_threads())
        examine(setup, name)

    def _train(self, name: str, title: str) -> dict[str, Any]:
        setup, job, folder = self.setup, self.setup.jobs[name], self.setup.work_folder(name)
        trained = finished_run(folder, setup.fingerprint(name))
        if trained is not None:
            return trained
        forget_records(folder)
        recipe = job.resolved_recipe()
        layers = layer_costs(recipe.network, get_mode(job.mode), job.dataset)
        state = STATE_BYTES * sum(layer.weights for layer in layers)
        reserve = FRAMES_SECONDS + CHECKPOINTS * state / DISK_BYTES_PER_S
        longest = 0.0

        def closing(seconds: float) -> None:
            nonlocal longest
            longest = max(longest, seconds)
            self.clock.reserve(reserve + CLOSING_SHARE * longest)

        def rest(seconds: float, epochs: int) -> float | None:
            self.estimate.learn(name, seconds, epochs)
            return self.estimate.left(other for other in self.open if other != name)

        def show(epochs: int, steps: int, batch: int) -> Lines:
            return Lines(title, epochs, rest, closing)

        if self.gained and self.clock.left() < reserve + START_SECONDS:
            self.clock.end()
        self.clock.reserve(reserve)
        before = _written(folder / CHECKPOINT)
        # On the CPU the preset's threads, as the workflow takes them: sums differ by their number.
        own = job.threads if setup.device.type == "cpu" else available_threads()
        set_threads(self.threads or own)
        try:
            run = run_training(
                setup.spec(name), setup.data, setup.device, self.checkpoint_seconds, show=show
            )
        finally:  # a checkpoint is written after a step alone
            self.gained = self.gained or _written(folder / CHECKPOINT) != before
        return run

    def _title(self, name: str) -> str:
        at = list(self.setup.jobs).index(name) + 1
        return f"[{at}/{len(self.setup.jobs)}] {name}"

    def _collect(self) -> None:
        if (self.setup.out / "runs").is_dir():
            collect(self.setup.out, keep=True)

    def _keep_unfinished(self) -> None:
        for name in self.open:
            if (self.setup.work_folder(name) / RUN).exists():
                keep(self.setup.work_folder(name), self.setup.out_folder(name))
        self._collect()

    def _close(self, signal_number: int | None) -> int:
        setup = self.setup
        failed = f", of which {len(self.failed)} failed" if self.failed else ""
        say(
            f"{len(setup.jobs) - len(self.open)} of {len(setup.jobs)} runs done{failed}; "
            f"frames and packed networks: {setup.out}, {bytes_text(folder_bytes(setup.out))}"
        )
        for what, names in (("failed", self.failed), ("error", self.errors)):
            for name in names:
                say(f"{what}: {name}")
        if signal_number is None:
            return FAILED_RUN if self.failed or self.errors else 0
        self._say_what_to_keep()
        if not self.clock.over:
            say(f"stopped by signal {signal_number}; the same command goes on")
            return 128 + signal_number
        if not self.gained:
            raise HarnessError("the time was over before the first step; give more --minutes")
        say(f"the time is over; the same command goes on (exit status {GO_ON})")
        return GO_ON

    def _say_what_to_keep(self) -> None:
        found = [needed_elsewhere(self.setup.work_folder(name)) for name in self.open]
        sizes = [f", {path} ({bytes_text(folder_bytes(path))})" for path in found if path]
        say(f"to go on on another machine, keep {self.setup.out}{''.join(sizes)}")


def _written(path: Path) -> int | None:
    """Return when a file was written, in ns; None where it is not there."""
    return path.stat().st_mtime_ns if path.exists() else None
