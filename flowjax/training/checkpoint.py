"""Checkpoints: saved aside by Orbax while training goes on, moved into place when whole, then sealed; a few of them kept."""

import contextlib
import errno
import logging
import re
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from flowjax.runtime import processes, storage
from flowjax.runtime.exit_codes import Exit
from flowjax.training import seal
from flowjax.training.step import State, Trainer

LINGER = 5.0
"""Seconds for which threads of a save that failed may still be writing."""
_PENDING = "not done yet"


class Restored(NamedTuple):
    """A checkpoint, read."""

    state: State
    data: Mapping[str, Any]
    """Values that the loop keeps beside the state."""


class SaveFailed(OSError):
    """A checkpoint that could not be saved."""

    status = Exit.NOT_SAVED


class Checkpointer:
    """The checkpoints of one run, in one folder; a context manager, which waits for the last one and lets go of the folder.

    Each holds the state (parameters, their average, the optimizer, the step, the key of all draws: a step's batch follows from the last
    two) and `meta`: the configuration and versions, against which a later run is checked. It can be read on other devices, and by another
    number of processes, than it was written by. Where there are several processes all of them call every method, in the same order.

    A checkpoint is there whole or not at all, whenever the process dies. Beside it stand the checksums of its files; one that does not fit
    them is moved to `damaged-STEP` and named on standard error, and the one before it is read. A save that fails (a full disk) is named
    too, and training goes on: the checkpoints before it still stand. Only of the last save of a run is it an error. Where several processes
    save and one of them fails, it is an error on all.

    Args:
      folder: created if need be; what an interrupted save left there is removed.
      every: steps between two checkpoints.
      keep: how many of the latest to keep.
      meta: plain JSON values.

    Raises:
      ValueError: numbers below 1.
    """

    def __init__(self, folder: storage.Folder, *, every: int, keep: int, meta: Mapping[str, Any]):
        if every < 1 or keep < 1:
            raise ValueError(f"checkpoint_every = {every}, keep_checkpoints = {keep}: expected at least 1")
        self._folder = folder if storage.in_bucket(folder) else folder.absolute()
        self._every, self._keep, self._meta = every, keep, dict(meta)
        self._heard = _Heard()
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self._step = 0
        self._orbax = self._open()

    def _open(self) -> Any:
        from orbax.checkpoint import v1 as ocp

        latest = ocp.training.preservation_policies.LatestN(self._keep)
        return ocp.training.Checkpointer(self._folder, preservation_policy=latest, cleanup_tmp_directories=True)

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        newest = self._orbax.latest
        return None if newest is None else int(newest.step)

    def due(self, step: int) -> bool:
        """Whether a checkpoint belongs after this step."""
        return step % self._every == 0

    def save(self, state: State, data: Mapping[str, Any], step: int) -> None:
        """Begin to save; returns as soon as the state may change again. Waits for the save before it, if that is not done."""
        try:
            self.wait()
        except SaveFailed as error:
            if processes.several():  # Orbax in the others waits for this one
                raise
            print(f"warning: {error}; training goes on", file=sys.stderr, flush=True)
        if self.latest == step:
            return
        if jax.default_backend() == "cpu":  # host memory is the device's: a copy is saved, which the next step does not overwrite
            state = jax.tree.map(jnp.copy, state)
        self._step = step
        content = {"state": state, "meta": {**self._meta, "data": dict(data)}}
        try:
            response = self._orbax.save_checkpointables_async(step, content, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            self._saving = Future()
            self._saving.set_exception(self._failed(error, step))
        else:
            self._saving = self._thread.submit(self._finish, response, step)

    def _finish(self, response: Any, step: int) -> None:
        """In a thread: until the save is done, and sealed."""
        try:
            response.result()
            if processes.is_first():
                seal.write(self._folder / str(step))
                self._remove_failed()
        except Exception as error:
            raise self._failed(error, step) from error

    def _remove_failed(self) -> bool:
        """Remove the files of failed saves, while nothing is being saved. Returns whether all are gone."""
        failed = [name for name in storage.names(self._folder) if ".orbax-checkpoint-tmp" in name]
        for name in failed:
            with contextlib.suppress(OSError):
                storage.remove(self._folder / name)
        return not failed

    def _failed(self, error: BaseException, step: int) -> SaveFailed:
        which = f"process {jax.process_index()}: " if processes.several() else ""
        return SaveFailed(f"the checkpoint at step {step} could not be saved in {self._folder} ({which}{_cause(error)})")

    def wait(self) -> None:
        """Wait until the saves that were begun are on disk, on all processes.

        Raises:
          SaveFailed: it could not be saved.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        if processes.several():
            return self._wait_together(saving)
        try:
            saving.result()
        except SaveFailed:
            with contextlib.suppress(Exception):
                self._orbax.close()
            deadline = time.monotonic() + LINGER
            with contextlib.suppress(OSError):
                while not self._remove_failed() and time.monotonic() < deadline:
                    time.sleep(0.05)
            self._orbax = self._open()  # afresh: nothing of what failed is carried on
            raise

    def _wait_together(self, saving: Future[None]) -> None:
        """The processes ask each other until all are done, or one has failed: Orbax would wait for it for 20 minutes, in all of them."""
        while True:
            own = str(saving.exception() or "") if saving.done() else _PENDING
            if own == _PENDING and self._heard.error is not None:
                own = str(self._failed(self._heard.error, self._step))
            told = processes.gather(own)
            failed = [words for words in told if words not in ("", _PENDING)]
            if failed:
                earlier = [int(name) for name in storage.names(self._folder) if name.isdigit() and int(name) != self._step]
                last = f"the last good one is at step {max(earlier)}" if earlier else "there is no earlier one"
                raise SaveFailed(f"{failed[0]}; {last}")
            if _PENDING not in told:
                return
            time.sleep(0.02)

    def restore(self, trainer: Trainer) -> Restored | None:
        """The newest checkpoint that is whole, on the trainer's devices; None if there is none.

        Raises:
          ValueError: a checkpoint of another configuration, it names the first key that differs; none that is whole.
        """
        damaged = []
        while self.latest is not None:
            step = self.latest
            sealed = False
            try:
                sealed = self._verify(step)
                earlier = self._orbax.load_checkpointables(step, {"meta": None})["meta"]
                _check_same(self._meta, earlier, f"the checkpoint at step {step}")
                state = self._orbax.load_checkpointables(step, {"state": trainer.placed()})["state"]
                return Restored(state, earlier["data"])
            except Mismatch:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EIO:  # a bucket, or a disk, that cannot be reached says nothing
                    raise
                if sealed:
                    raise ValueError(f"the checkpoint at step {step} in {self._folder} cannot be read ({_cause(error)})") from error
                damaged.append(f"the checkpoint at step {step} is damaged ({_cause(error)})")
                kept = self._set_aside(step)
                if processes.is_first():
                    print(f"warning: {damaged[-1]}; it is kept as {kept}", file=sys.stderr, flush=True)
        if damaged:
            raise ValueError(f"{damaged[0]}, and no other is left in {self._folder}: pass --overwrite to begin again")
        return None

    def _verify(self, step: int) -> bool:
        """Whether the files are sealed, and as they were then; the first process reads them, and tells the others.

        Raises:
          seal.Broken: they are not as they were.
        """
        found = seal.check(self._folder / str(step)) if processes.is_first() else None
        told = -1 if found is None else list(seal.Seal).index(found.seal)
        seen = list(seal.Seal)[int(multihost_utils.broadcast_one_to_all(jnp.int32(told)))]
        if seen is seal.Seal.BROKEN:
            raise seal.Broken(found.why if found else "its checksums do not fit")
        return seen is seal.Seal.WHOLE

    def _set_aside(self, step: int) -> str:
        """Move a checkpoint to where it is not taken for one; returns its new name."""
        name = next(name for k in range(10_000) if not (self._folder / (name := f"damaged-{step}{f'-{k}' if k else ''}")).exists())
        multihost_utils.sync_global_devices("a damaged checkpoint has been seen")
        if processes.is_first():
            storage.move(self._folder / str(step), self._folder / name)
        multihost_utils.sync_global_devices("and set aside")
        self._orbax.reload()
        return name

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and processes.several() and not isinstance(error, SystemExit):
            return self._thread.shutdown(wait=False)  # the other processes may be gone: nobody is waited for
        try:
            self.wait()
        except SaveFailed as failed:
            if error is None:
                raise
            print(f"warning: {failed}", file=sys.stderr, flush=True)
        finally:
            self._thread.shutdown()
            self._orbax.close()
            self._heard.close()


class _Heard(logging.Filter):
    """Errors in Orbax's threads: Orbax logs them at once, and raises them only when all processes have reached the end of the save.
    Its other messages (every file that it renames) are not shown."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        logger = logging.getLogger("absl")
        logger.setLevel(logging.ERROR)
        logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if self.error is None and record.exc_info and record.exc_info[1] is not None:
            self.error = record.exc_info[1]
        return False

    def close(self) -> None:
        logging.getLogger("absl").removeFilter(self)


class NoCheckpointer(Checkpointer):
    """Keeps nothing: for runs whose result is all that matters."""

    def __init__(self) -> None:
        pass

    @property
    def latest(self) -> int | None:
        return None

    def due(self, step: int) -> bool:
        return False

    def save(self, state: State, data: Mapping[str, Any], step: int) -> None:
        pass

    def wait(self) -> None:
        pass

    def restore(self, trainer: Trainer) -> Restored | None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class Mismatch(ValueError):
    """A checkpoint of another configuration."""


def _check_same(wanted: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Every value of `wanted` under the same key in `found`; versions, and what the loop keeps, may differ."""
    ours, theirs = ({key: value for key, value in meta.items() if key not in ("versions", "data")} for meta in (wanted, found))
    for key, asked, made in processes.differences(ours, theirs):
        raise Mismatch(f"{key} = {asked!r}, but {where} was made with {made!r}: resume with the same, or give another --workdir")


def _cause(error: BaseException) -> str:
    """The first words of what was first wrong: Orbax wraps errors in errors."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    words = (str(error).strip().splitlines() or [type(error).__name__])[0].split(" [")[0]
    return re.sub(r'"(?:[^"/]*/)+([^"/]+)"', r"\1", words)[:200]  # names of files, without their folders
