"""Communication among the processes of a job. All processes call each function alike; in a job of one process it is a plain call."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from flowjax.runtime import exit_codes

T = TypeVar("T")
Json = Any

FAILURES = (ValueError, OSError, NotImplementedError, MemoryError)
"""Errors that a user can cause: they end a process with one line."""


def several() -> bool:
    """Whether this process is one of several. Asks nothing of JAX's devices where there is one: they may not be there yet."""
    return bool(jax.distributed.is_initialized() and jax.process_count() > 1)


class FailedThere(ValueError):
    """An error that a user can cause, in another process."""

    def __init__(self, index: int, words: str, status: int):
        super().__init__(f"process {index}: {words}")
        self.status = status


def is_first() -> bool:
    """Whether this process writes what one process writes for all."""
    return not several() or jax.process_index() == 0


def gather(text: str) -> list[str]:
    """The text of every process, in their order."""
    if not several():
        return [text]
    own = text.encode()
    sizes = multihost_utils.process_allgather(np.int32(len(own)))
    if not sizes.any():
        return ["" for _ in sizes]
    room = 1 << max(int(sizes.max()), 1).bit_length()  # few lengths: each is a program
    padded = np.frombuffer(own.ljust(room, b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def gather_array(values: np.ndarray) -> list[np.ndarray]:
    """The array of every process, bit for bit, in their order; all of one shape and dtype."""
    if not several():
        return [values]
    rows = multihost_utils.process_allgather(np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8))
    return [np.frombuffer(row.tobytes(), values.dtype).reshape(values.shape) for row in rows]


def together(f: Callable[[], T]) -> T:
    """`f()`, on each process. Where it fails on one it fails on all, in the words of that one.

    Raises:
      FailedThere: another process's error. This process's own is raised as it is.
    """
    if not several():
        return f()
    result, own = None, None
    try:
        result = f()
    except FAILURES as error:
        own = error
    said = gather("" if own is None else json.dumps([str(own) or type(own).__name__, exit_codes.of_error(own)]))
    if own is not None:
        raise own
    for index, words in enumerate(said):
        if words:
            raise FailedThere(index, *json.loads(words))
    return result  # type: ignore[return-value]


def of_first(f: Callable[[], Json]) -> Json:
    """The result of `f()`, a plain JSON value, on all processes; `f` runs on the first process only."""
    value = together(lambda: f() if is_first() else None)
    return json.loads(gather(json.dumps(value))[0])


def check_same(facts: Mapping[str, Json]) -> None:
    """Check that every process was started with the same facts, plain JSON values.

    Raises:
      ValueError: on all of them, with the first key that differs and both values.
    """
    told = [json.loads(text) for text in gather(json.dumps(facts, sort_keys=True, default=str))]
    for index, other in enumerate(told[1:], 1):
        for key, here, there in differences(told[0], other):
            raise ValueError(f"process {index} has {key} = {there!r}, but process 0 has {here!r}: start all processes alike")


def differences(a: Json, b: Json, key: str = "") -> Iterator[tuple[str, Json, Json]]:
    """Where two JSON values differ: the key, A.B.C, and both values. Tuples and lists are the same."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in sorted(set(a) | set(b)):
            yield from differences(a.get(name), b.get(name), f"{key}.{name}" if key else str(name))
    elif _plain(a) != _plain(b):
        yield key, a, b


def whole(tree: Any) -> Any:
    """Arrays that lie on the devices of several processes: all of each, on every host, as NumPy arrays. Others as they are."""
    leaves = jax.tree.leaves(tree)
    if all(leaf.is_fully_addressable for leaf in leaves):
        return tree
    if all(leaf.is_fully_replicated for leaf in leaves):
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _plain(value: Json) -> Json:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
