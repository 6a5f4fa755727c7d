"""The sweep of an oracle through time: moments of the posterior at the same pairs of noise and data for every t."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.data.dataset import Rows
from flowjax.oracle import Oracle
from flowjax.runtime import processes
from flowjax.runtime.preemption import Preemption, Stopped
from flowjax.runtime.result_store import ResultStore
from flowjax.runtime.watchdog import Watchdog
from flowjax.schedules import checked_times

AT_ONCE = 4096
"""Queries in one call of the oracle."""
COLUMNS = ("top1_weight", "cfm_gap", "monte_carlo_gap", "entropy", "effective_samples")
"""What a sweep keeps for each pair and t: fields of `flowjax.oracle.along_path.PathOutput`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Q pairs of noise and data; each gives one query x_t = α x_1 + σ x_0 at every t."""

    x_0: Float[Array, "Q *shape"]
    x_1: Float[Array, "Q *shape"]
    labels: Int[Array, " Q"] | None
    """The class that the oracle is conditioned on for each pair; None: on nothing."""


def draw_pairs(
    samples: ArrayLike | Rows,
    num_queries: int,
    seed: int,
    *,
    labels: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    exhaust: bool = False,
) -> Pairs:
    """`num_queries` pairs: x_1 drawn uniformly from the samples, x_0 ~ N(0, I).

    Args:
      samples: `[M, *shape]`, of which those that are drawn are read.
      seed: of both draws.
      labels: `[M]`: keep each sample's label, to condition on; None: do not condition.
      counts: `[M]`: draw in proportion to these instead of uniformly.
      exhaust: draw without replacement as long as there are samples left: for sets whose own samples are to be analysed.

    Raises:
      ValueError: num_queries is below 1.
    """
    if num_queries < 1:
        raise ValueError(f"num_queries = {num_queries}: expected at least 1")
    samples = samples if isinstance(samples, Rows) and not isinstance(samples, jax.Array) else np.asarray(samples)
    total = samples.shape[0]
    rng = np.random.default_rng(seed)
    if exhaust:
        index = np.concatenate([rng.permutation(total) for _ in range(-(-num_queries // total))])[:num_queries]
    else:
        weights = None if counts is None else np.asarray(counts, np.float64)
        index = rng.choice(total, num_queries, p=None if weights is None else weights / weights.sum())
    x_1 = samples[index].astype(np.float32)
    x_0 = rng.standard_normal(x_1.shape, np.float32)
    return Pairs(jnp.asarray(x_0), jnp.asarray(x_1), None if labels is None else jnp.asarray(np.asarray(labels)[index], jnp.int32))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Results of a sweep."""

    columns: dict[str, Float[np.ndarray, "T Q"]]
    """`COLUMNS` of every pair at every t, float64."""
    x_t: Float[np.ndarray, "K T *shape"]
    """The queries of the first K pairs."""
    one_step: Float[np.ndarray, "K T *shape"]
    """The result of one Euler step from t to 1 along the oracle: `x_t + (1 - t) u*(x_t, t)`. For rectified flow that is E[x_1 | x_t]: the
    mean of the class, or of all, at t = 0, a single sample late (arXiv 2512.02826, finding 4)."""


def sweep(
    oracle: Oracle,
    pairs: Pairs,
    t: ArrayLike,
    *,
    keep: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    store: ResultStore | None = None,
    watchdog: Watchdog | None = None,
) -> Sweep:
    """Follow every pair through t.

    By `Oracle.along_path`, so many t at a time as share its products (`Oracle.times_together`), so that a long sweep can report its
    progress and be cut off; and for `AT_ONCE` pairs at a time. An oracle over several processes is called by all of them.

    Args:
      t: `[T]` times in [0, 1), in any order.
      keep: K, the number of pairs whose queries and one-step predictions are kept.
      progress: wraps the iterator over the t that are left to do (`tqdm.tqdm`, for one).
      store: of arrays; keeps what is found as it comes, and knows what was found before. With it SIGTERM, to any process, ends the sweep on
        all of them when the t at work is done.
      watchdog: hears of every call to the oracle.

    Raises:
      ValueError: t is not a vector of times in [0, 1).
      Stopped: SIGTERM came, and what was found is kept. It ends the process with the status `Exit.STOPPED`.
    """
    times = checked_times(np.asarray(t, np.float32), one=False, rising=False).tolist()
    found: dict[int, dict[str, np.ndarray]] = {}
    if store is not None:
        known = processes.of_first(lambda: [index for index, time in enumerate(times) if store.find({"t": time}) is not None])
        found = {index: store.read({"t": times[index]}) for index in known}
    with contextlib.ExitStack() as stack:
        guard = stack.enter_context(watchdog or Watchdog())
        preemption = stack.enter_context(Preemption(enabled=store is not None))
        guard.beat()
        left, ready = [index for index in range(len(times)) if index not in found], dict[int, dict[str, np.ndarray]]()
        for index in progress(left):
            if index not in ready:  # with the same others as in a run that was not cut off: the last bits depend on them
                first = index - index % oracle.times_together
                some = range(first, min(first + oracle.times_together, len(times)))
                ready = dict(zip(some, _at(oracle, pairs, np.array([times[k] for k in some], np.float32), keep, guard), strict=True))
            found[index] = ready[index]
            if store is not None:
                processes.together(lambda index=index: store.keep({"t": times[index]}, found[index]))  # type: ignore[misc]
            if preemption.asked(index + 1):
                raise Stopped(f"t = {times[index]:.4g}")
    in_order = [found[index] for index in range(len(times))]
    columns = {name: np.stack([part[name] for part in in_order]) for name in COLUMNS}
    return Sweep(columns, *(np.stack([part[name] for part in in_order], axis=1) for name in ("x_t", "one_step")))


def _at(oracle: Oracle, pairs: Pairs, t: Float[np.ndarray, " T"], keep: int, guard: Watchdog) -> list[dict[str, np.ndarray]]:
    """For each t `COLUMNS` of every pair, float64; x_t and the one-step prediction of the first ones."""
    total = len(pairs.x_0)
    size = -(-total // -(-total // AT_ONCE))
    parts = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)  # all parts have one shape: one program
        some = jax.tree.map(lambda v: v[rows], pairs)  # noqa: B023
        out = processes.whole(oracle.along_path(some.x_0, some.x_1, t, some.labels))
        parts.append({name: np.asarray(getattr(out, name), np.float64) for name in COLUMNS})
        guard.beat()
    columns = {name: np.concatenate([part[name] for part in parts], axis=1)[:, :total] for name in COLUMNS}
    first = jax.tree.map(lambda v: v[:keep], pairs)
    return [{name: rows[k] for name, rows in columns.items()} | _one_step(oracle, first, jnp.float32(time)) for k, time in enumerate(t)]


def _one_step(oracle: Oracle, pairs: Pairs, t: Float[Array, ""]) -> dict[str, np.ndarray]:
    """The queries of some pairs, and where one step along the oracle leads from them."""
    x_t = oracle.path.interpolate(pairs.x_0, pairs.x_1, t)
    velocity = processes.whole(oracle(x_t, t, pairs.labels, moments="velocity")).velocity
    return {"x_t": np.asarray(x_t), "one_step": np.asarray(x_t + (1 - t) * velocity)}
