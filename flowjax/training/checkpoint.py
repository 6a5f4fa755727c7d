"""Checkpoints: saved aside by Orbax while training goes on, moved into place when whole, a few of them kept."""

import contextlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from flowjax.training.step import State, Trainer


class Restored(NamedTuple):
    """A checkpoint, read."""

    state: State
    data: Mapping[str, Any]
    """What the loop keeps beside the state: that of the data iterator, and the loss."""


class Checkpointer:
    """The checkpoints of one run, in one folder.

    Each holds the state (parameters, their average, the optimizer, the key of all draws), that of the data iterator, and `meta`: the
    configuration and versions, against which a later run is checked.

    Args:
      folder: created if need be; what an interrupted save left there is removed.
      every: steps between two checkpoints.
      keep: how many of the latest to keep.
      meta: plain JSON values.

    Raises:
      ValueError: numbers below 1.
    """

    def __init__(self, folder: pathlib.Path, *, every: int, keep: int, meta: Mapping[str, Any]):
        if every < 1 or keep < 1:
            raise ValueError(f"checkpoint_every = {every}, keep_checkpoints = {keep}: expected at least 1")
        self._every, self._meta = every, dict(meta)
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file that it renames
        latest = ocp.training.preservation_policies.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(folder.absolute(), preservation_policy=latest, cleanup_tmp_directories=True)

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
        self.wait()
        if self.latest == step:
            return
        if jax.default_backend() == "cpu":  # host memory is the device's: what is saved must not be what the next step overwrites
            state = jax.tree.map(jnp.copy, state)
        self._orbax.save_checkpointables_async(step, {"state": state, "meta": {**self._meta, "data": dict(data)}}, force=True)

    def restore(self, trainer: Trainer) -> Restored | None:
        """The newest checkpoint on the trainer's devices; None if there is none.

        Raises:
          ValueError: a checkpoint of another configuration; it names the first key that differs.
        """
        if self.latest is None:
            return None
        earlier = self._orbax.load_checkpointables(None, {"meta": None})["meta"]
        _check_same(self._meta, earlier, f"the checkpoint at step {self.latest}")
        return Restored(self._orbax.load_checkpointables(None, {"state": trainer.placed()})["state"], earlier["data"])

    def wait(self) -> None:
        """Until what was begun is on disk."""
        self._orbax.wait()

    def close(self) -> None:
        """Wait, and let go of the folder."""
        with contextlib.closing(self._orbax):
            self.wait()


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

    def restore(self, trainer: Trainer) -> Restored | None:
        return None

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


def _check_same(wanted: Any, found: Any, where: str, key: str = "") -> None:
    """Every value of `wanted` under the same key in `found`; versions may differ."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name in sorted(set(wanted) | set(found)):
            inner = f"{key}.{name}" if key else str(name)
            if inner in ("versions", "data"):
                continue
            _check_same(wanted.get(name), found.get(name), where, inner)
    elif _plain(wanted) != _plain(found):
        raise ValueError(f"{key} = {wanted!r}, but {where} was made with {found!r}: resume with the same, or give another --workdir")


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
