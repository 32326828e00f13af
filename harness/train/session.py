"""A run that is open: its folder locked, its trainer ready, its files kept in step."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.data.dataset import Dataset
from harness.data.fitted import fitted
from harness.data.preprocess import Preprocessor
from harness.errors import HarnessError
from harness.files import remove_leftovers, sha256_file
from harness.methods import build_method
from harness.nn import tf32
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.streams import Streams
from harness.provenance import uncommitted
from harness.text import one_line
from harness.track import Mirror, Tracking
from harness.train import record
from harness.train.checkpoint import (
    BEST,
    CHECKPOINT,
    load_checkpoint,
    save_weights,
)
from harness.train.inputs import Source, image_shape
from harness.train.loop import Diverged, Stopped, Trainer
from harness.train.progress import Show
from harness.train.record import RunSpec
from harness.train.sparing import Sparing

MakeShow = Callable[[int, int, int], Show]
_log = logging.getLogger("harness.train")


def prepare_network(
    spec: RunSpec, dataset: Dataset, data: Path, device: torch.device
) -> tuple[BinaryNetwork, Streams, Preprocessor]:
    """Build the run's network, and fit its preprocessing on the training split or look it up."""
    preprocessor = fitted(spec.recipe.preprocess, dataset, data)
    streams = Streams(spec.seed, device)
    affine = preprocessor.affine
    network = build_network(
        spec.recipe.network,
        spec.recipe.deployed_mode(spec.mode),
        streams,
        image_shape(dataset),
        None if affine is None else (affine.scale, affine.offset),
    )
    network.to(device)
    return network, streams, preprocessor


def _wait_for_lock(folder: Path) -> FileLock:
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process trains in %s; waiting for it to end", folder)
        lock.acquire()
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder for this process, waiting for another one that trains in it.

    Raises:
        HarnessError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _wait_for_lock(folder)
    except OSError as error:
        raise HarnessError(
            f"cannot write in the run folder {folder}: {error.strerror or error}"
        ) from error
    try:
        for name in (CHECKPOINT, BEST, record.RUN, record.METRICS):
            remove_leftovers(folder / name, settled_s=0)
        yield
    finally:
        lock.release()


def open_session(
    spec: RunSpec, source: Source, checkpoint_seconds: float, tracking: Tracking
) -> "Session | dict[str, Any]":
    """Return the run ready to go on, or its run.json where it has ended.

    Raises:
        HarnessError: the data are not there, or damaged.
    """
    dataset, device = source.dataset(spec.recipe.dataset), source.device
    wanted = record.fingerprint(spec, dataset.manifest["digest"], device.type)
    done = record.finished_run(spec.folder, wanted)
    if done is not None:
        (spec.folder / CHECKPOINT).unlink(missing_ok=True)  # a kill may have come before
        _log.info(
            "%s already ended (%s); delete the folder to train again", spec.folder, done["status"]
        )
        return done
    tf32.forbid()  # integer products must stay exact
    # The fastest of the library's convolutions, by its own clock: runs may round differently.
    torch.backends.cudnn.benchmark = spec.recipe.precision == "fast"
    network, streams, preprocessor = prepare_network(spec, dataset, source.data, device)
    trainer = Trainer(
        spec.recipe,
        build_method(spec.recipe, spec.mode, network, streams),
        source.splits(dataset.name, preprocessor, network.integer_input),
        spec.folder,
        wanted,
        checkpoint_seconds,
    )
    run = record.new_run(spec, dataset, network, device.type, torch.get_num_threads())
    run["other_weights"] = trainer.method.other_weights
    state = load_checkpoint(spec.folder, wanted)
    if state is None:
        if record.fingerprint_of(spec.folder) not in (None, wanted):
            _log.warning("%s holds a run of other settings or data: replaced", spec.folder)
        record.forget_later_stages(spec.folder)  # of an earlier run in this folder
    else:
        try:
            trainer.resume(state)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise HarnessError(
                f"{spec.folder / CHECKPOINT} does not fit this version of the code "
                f"({one_line(error)}); delete it to train the run anew"
            ) from error
        run["started"] = trainer.progress.started or run["started"]
        _log.info("resuming at epoch %d", trainer.progress.epoch + 1)
    trainer.progress.started = run["started"]
    run["earlier_code"] = _earlier_code(trainer, run["provenance"])
    return Session(spec, trainer, run, preprocessor, tracking)


def _earlier_code(trainer: Trainer, provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Note which code goes on with the run; return that of before, and warn of it."""
    here = {**provenance, "changes": uncommitted()}
    before = [code for code in trainer.progress.code if not _same_code(code, here)]
    if before:
        _log.warning(
            "%s was trained up to epoch %d by other code (%s, here %s): its numbers may be those "
            "of neither; delete the folder to train it by this code alone",
            trainer.folder,
            trainer.progress.epoch,
            ", ".join(map(_code_text, before)),
            _code_text(here),
        )
    trainer.progress.code = [*before, here]
    return before


def _same_code(one: dict[str, Any], other: dict[str, Any]) -> bool:
    # Of a copy of the files, whose commit BNN_COMMIT names, no changes are known.
    known = None not in (one["dirty"], other["dirty"])
    same_changes = not known or one["changes"] == other["changes"]
    return bool(one["commit"] == other["commit"] and same_changes)


def _code_text(code: dict[str, Any]) -> str:
    commit = code["commit"]
    return f"commit {commit[:12]}{' + changes' * bool(code['dirty'])}" if commit else "no checkout"


class Session:
    """Keeps the run's files and its mirror in step with the trainer."""

    def __init__(
        self,
        spec: RunSpec,
        trainer: Trainer,
        run: dict[str, Any],
        preprocessor: Preprocessor,
        tracking: Tracking,
    ) -> None:
        self.spec, self.trainer, self.json = spec, trainer, run
        arrays = preprocessor.state()
        self.extra = {f"preprocess.{k}": torch.as_tensor(v) for k, v in arrays.items()}
        self.mirror = Mirror.open(tracking.uri, run, spec.folder, tracking.after)
        self.best, self.metrics = Sparing(self._save_best), Sparing(self._write_metrics)

    def advance(self, show: MakeShow) -> Generator[None, None, dict[str, Any]]:
        """Train, yielding after each step or graph of steps; return run.json."""
        self._rewrite_files()
        for metrics in self.trainer.progress.metrics:
            self.mirror.epoch(metrics)
        epochs, steps = self.spec.recipe.epochs, self.trainer.steps_per_epoch
        with show(epochs, steps, self.spec.recipe.batch) as bar:
            bar.start(self.trainer.progress)

            def on_epoch(metrics: dict[str, Any], best: bool) -> None:
                if best:
                    self.best.ask()
                self.metrics.ask()
                self.mirror.epoch(metrics)
                bar.epoch(metrics)

            try:
                for progress in self.trainer.advance(on_epoch):
                    bar.step(progress)
                    yield
            except Stopped:
                self._write_pending()
                raise
            except Diverged as failure:
                return self._finish("failed", {"epoch": failure.epoch, "reason": str(failure)})
        return self._finish("done", None)

    def takes_turns(self, runs: int, mixed: bool) -> None:
        """Note that ``runs`` of them take turns in this process, this one too.

        ``mixed``: they differ in more than their seed, so a share of the time is no one's own.
        """
        self.trainer.share_time(runs)
        progress = self.trainer.progress
        progress.together = self.json["together"] = max(progress.together, runs)
        progress.mixed = self.json["mixed"] = progress.mixed or mixed

    def _rewrite_files(self) -> None:
        # The workflow deletes a job's outputs before it runs the job again: the checkpoint has all.
        record.write_run(self.spec.folder, self.json)
        self._write_metrics()
        if self.trainer.best_state:
            self._save_best()

    def _write_pending(self) -> None:
        self.best.flush()
        self.metrics.flush()

    def _write_metrics(self) -> None:
        record.write_metrics(self.spec.folder, self.trainer.progress.metrics)

    def _save_best(self) -> None:
        save_weights(self.spec.folder / BEST, {**self.trainer.best_state, **self.extra})

    def _finish(self, status: str, failure: dict[str, Any] | None) -> dict[str, Any]:
        progress = self.trainer.progress
        self._write_pending()
        if not self.trainer.best_state:  # failed in the first epoch: what there is, to look into
            save_weights(
                self.spec.folder / BEST, {**self.trainer.network.state_dict(), **self.extra}
            )
        elif not (self.spec.folder / BEST).exists():
            self._save_best()
        by_epoch: dict[int | None, dict[str, Any]] = {m["epoch"]: m for m in progress.metrics}
        best, other = (
            by_epoch.get(epoch, {}) for epoch in (progress.best_epoch, progress.other_best_epoch)
        )
        images = sum(m["images_per_s"] * m["seconds"] for m in progress.metrics)
        timed = progress.seconds > 0 and not progress.mixed
        self.json.update(
            status=status,
            failure=failure,
            finished=record.utc_now(),
            train_seconds=round(progress.seconds, 3),
            images_per_s=round(images / progress.seconds, 1) if timed else None,
            epochs_done=progress.epoch,
            best_epoch=progress.best_epoch,
            best_sha256=sha256_file(self.spec.folder / BEST),
            valid_error_pct=best.get("valid_error_pct"),
            test_error_pct=best.get("test_error_pct") if status == "done" else None,
            other_best_epoch=progress.other_best_epoch,
            other_valid_error_pct=other.get("other_valid_error_pct"),
            other_test_error_pct=other.get("other_test_error_pct") if status == "done" else None,
        )
        record.forget_later_stages(self.spec.folder)  # of the best weights while it trained
        record.write_run(self.spec.folder, self.json)
        (self.spec.folder / CHECKPOINT).unlink(missing_ok=True)
        self.mirror.finish(self.json)
        return self.json
