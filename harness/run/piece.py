"""One piece of a preset: what is left of its runs, one after the other, until the time is over."""

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness.errors import HarnessError
from harness.report.collect import collect
from harness.run.clock import Clock
from harness.run.estimate import Estimate
from harness.run.group import GPU_TOGETHER, rows
from harness.run.keep import folder_bytes, keep, kept_run, needed_elsewhere
from harness.run.setup import Setup
from harness.run.show import say
from harness.run.stages import examine
from harness.run.training import FRAMES_SECONDS, Training
from harness.text import bytes_text, hours_text, said
from harness.train.checkpoint import CHECKPOINT
from harness.train.commands import FAILED_RUN
from harness.train.loop import Interrupted
from harness.train.record import fingerprint_of, stages_files
from kernels.cpu.threads import available_threads, set_threads

_log = logging.getLogger("harness.run")
GO_ON = 75  # EX_TEMPFAIL: not all is done, and the same command goes on


class Piece:
    """Trains, examines and keeps the runs of a preset; :meth:`run` returns the exit status.

    Up to ``together`` seeds of a recipe train in turns; 0: several on a GPU, one on the CPU. Where
    ``mixed``, so do neighbours of any kind.
    """

    def __init__(
        self,
        setup: Setup,
        clock: Clock,
        threads: int = 0,
        checkpoint_seconds: float = 60.0,
        together: int = 0,
        mixed: bool = False,
    ) -> None:
        self.setup, self.clock, self.threads = setup, clock, threads
        self.mixed = mixed
        self.together = together or (1 if setup.device.type == "cpu" else GPU_TOGETHER)
        self.estimate = Estimate(setup)
        self.training = Training(setup, clock, self.estimate, threads, checkpoint_seconds)
        self.open: list[str] = []  # runs that are not kept whole yet
        self.failed: list[str] = []  # diverged: run.json says so
        self.errors: list[str] = []  # tried again by the next piece

    def run(self) -> int:
        """Go through what is left, and return the exit status.

        Raises:
            HarnessError: the time is over before a single step or record could be made.
        """
        self._look()
        signal_number = None
        try:
            with self.clock:
                jobs, names = self.setup.jobs, list(self.open)
                for row in rows(jobs, names, self.together, self.mixed):
                    self._run_together(row)
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

    def _run_together(self, names: Sequence[str]) -> None:
        """Train runs in turns and examine each when it has ended; one by one after an error."""
        left = list(names)
        while left:
            ended: dict[str, dict[str, Any]] = {}
            with self._errors(left):
                titles = {name: self._title(name) for name in left}
                ended = self.training.run(titles, [n for n in self.open if n not in left])
            self._release()
            if not ended:
                for name in left if len(left) > 1 else ():
                    self._run_together([name])
                return
            for name, run in ended.items():
                left.remove(name)
                self._put_away(name, run)

    @contextmanager
    def _errors(self, names: Sequence[str]) -> Iterator[None]:
        """Report an error, and try what met it again with the next piece, or one by one."""
        try:
            yield
        except Exception as error:  # a GPU's compiler, launcher and libraries have their own
            reason = str(error)
            if not isinstance(error, HarnessError):
                _log.error("not foreseen:", exc_info=error)
                reason = said(error)
            if len(names) > 1:
                say(f"{self._title(names[0])} and {len(names) - 1} more, now one by one: {reason}")
            else:
                say(f"{self._title(names[0])} error: {reason}")
                self.errors += names

    def _release(self) -> None:
        gc.collect()
        if self.setup.device.type == "cuda":
            torch.cuda.empty_cache()

    def _put_away(self, name: str, run: dict[str, Any]) -> None:
        """Examine a run that has ended its training, and keep what is kept of it."""
        examined = False
        with self._errors([name]), self._gains(name):
            self.clock.check()
            self._report(name, run)
            # A stop may have come between a run's record and the end of its checkpoint.
            (self.setup.work_folder(name) / CHECKPOINT).unlink(missing_ok=True)
            self.clock.reserve(FRAMES_SECONDS)
            set_threads(self.threads or available_threads())
            examine(self.setup, name)
            examined = True
        self._release()
        if not examined:
            return
        with self.clock.undisturbed():
            keep(self.setup.work_folder(name), self.setup.out_folder(name))
            self._collect()
            self.open.remove(name)
            self.training.gained = True
        self.clock.check()

    @contextmanager
    def _gains(self, name: str) -> Iterator[None]:
        """Count a record that was written as a gain, also where a stop cuts what comes next."""
        folder = self.setup.work_folder(name)
        before = stages_files(folder)
        try:
            yield
        finally:
            self.training.gained = self.training.gained or stages_files(folder) != before

    def _report(self, name: str, run: dict[str, Any]) -> None:
        title = self._title(name)
        self.estimate.learn(name, run["train_seconds"], run["epochs_done"])
        if run["status"] == "failed":
            say(f"{title} failed: {run['failure']['reason']}")
            self.failed.append(name)
            return
        say(
            f"{title} best epoch {run['best_epoch']}: validation error "
            f"{run['valid_error_pct']:.2f} %, test error {run['test_error_pct']:.2f} %"
        )

    def _title(self, name: str) -> str:
        at = list(self.setup.jobs).index(name) + 1
        return f"[{at}/{len(self.setup.jobs)}] {name}"

    def _collect(self) -> None:
        if (self.setup.out / "runs").is_dir():
            collect(self.setup.out, keep=True)

    def _keep_unfinished(self) -> None:
        for name in self.open:
            if self._recorded(name) == self.setup.fingerprint(name):
                keep(self.setup.work_folder(name), self.setup.out_folder(name))
        self._collect()

    def _recorded(self, name: str) -> str | None:
        return fingerprint_of(self.setup.work_folder(name))

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
        if not self.training.gained:
            raise HarnessError("the time was over before a step or a record; give more --minutes")
        say(f"the time is over; the same command goes on (exit status {GO_ON})")
        return GO_ON

    def _say_what_to_keep(self) -> None:
        # Without a record, as Snakemake leaves a stopped run, its checkpoint still is its own.
        own = [x for x in self.open if self._recorded(x) in (None, self.setup.fingerprint(x))]
        found = [needed_elsewhere(self.setup.work_folder(name)) for name in own]
        sizes = [f", {path} ({bytes_text(folder_bytes(path))})" for path in found if path]
        say(f"to go on on another machine, keep {self.setup.out}{''.join(sizes)}")
