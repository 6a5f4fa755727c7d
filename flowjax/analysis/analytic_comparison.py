"""How much of a model's predictions each analytic field explains: the oracle, a Gaussian, patches, ... at the same noisy queries."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.analysis.condensation import condensation_thresholds
from flowjax.analysis.statistics import Curve, Interval
from flowjax.analysis.sweep import Pairs
from flowjax.analysis.turning_point import time_of_ratio
from flowjax.oracle.compiled import velocity_center
from flowjax.path import Path

STAGES = ("navigation", "between", "refinement")
ORACLE = "oracle"
"""The name of that field."""
MARGIN = 0.05
"""Of the variance: where another field explains so much more of it, the oracle no longer explains the model."""
PERCENTILES = (2.5, 97.5)
Denoiser = Callable[[Array, Array, Array | None], Any]
"""`denoiser(x_t, t, label)` → E[x_1 | x_t], for one t."""


class Distances(NamedTuple):
    """Squared distances between predictions of x_1, of every query at every t, per value of a sample."""

    fields: dict[str, Float[np.ndarray, "T Q"]]
    """From the model's prediction to that of each field."""
    spread: Float[np.ndarray, "T Q"]
    """From the model's prediction to the mean of the data: what there is to explain."""
    motion: Float[np.ndarray, "T Q"]
    """‖u‖² / A² of the model's velocity u, so that a field's share of it is the squared relative error of velocities."""


def denoised_by(field: Callable[..., Any], path: Path) -> Denoiser:
    """The prediction that a velocity field makes: `E[x_1 | x_t] = κ_t x + u(x, t) / A_t`; x + (1 - t) u for rectified flow."""

    def predict(x: Array, t: Array, label: Array | None) -> Any:
        return _center(path, t) * x + field(x, t, label) / path.A(t)

    return predict


def _center(path: Path, t: Array) -> Array:
    """κ of `velocity_center` at one t."""
    return velocity_center(path, jnp.reshape(t, (1,)))[0]


def queries_at(pairs: Pairs, path: Path, t: float) -> Array:
    """x_t of all pairs."""
    return path.interpolate(pairs.x_0, pairs.x_1, jnp.float32(t))


def predictions(denoiser: Denoiser, pairs: Pairs, path: Path, t: Float[np.ndarray, " T"], rows: Any = slice(None)) -> np.ndarray:
    """`[T, Q, *shape]` of the pairs in `rows`."""
    some = jax.tree.map(lambda leaf: leaf[rows], pairs)
    return np.stack([np.asarray(denoiser(queries_at(some, path, time), jnp.float32(time), some.labels)) for time in t])


def distances(
    model: Denoiser,
    fields: Mapping[str, np.ndarray],
    pairs: Pairs,
    path: Path,
    t: Float[np.ndarray, " T"],
    mean: Float[np.ndarray, "*shape"],
) -> Distances:
    """Of a model from every field.

    Args:
      fields: name → `predictions` at the same queries and times.
      mean: of the training data.
    """
    found = predictions(model, pairs, path, t).astype(np.float64)
    across = tuple(range(2, found.ndim))
    at_rest = np.stack([float(_center(path, jnp.float32(time))) * np.asarray(queries_at(pairs, path, time), np.float64) for time in t])
    square = lambda part: ((found - part) ** 2).mean(across)  # noqa: E731
    return Distances({name: square(part) for name, part in fields.items()}, square(np.asarray(mean, np.float64)), square(at_rest))


def stage_edges(data: np.ndarray, labels: Int[np.ndarray, " N"] | None, path: Path, *, seed: int = 0) -> tuple[float, float]:
    """Where navigation ends and refinement begins: the mean top-1 weight is 0.1, and 0.9. Between them lies the turning point, 0.5.

    Predicted, as `flowjax.analysis.turning_point` does: the share of queries whose own sample is on top.
    """
    low, high = np.quantile(condensation_thresholds(data, labels, seed=seed), [0.1, 0.9])
    return time_of_ratio(float(low), path), time_of_ratio(float(high), path)


class Explained(NamedTuple):
    """What the fields explain of one or more models (trained alike but for the seed), each with 95 % bootstrap intervals.

    Queries are drawn again, each with all its times; and so are the seeds where there are several.
    """

    share: dict[str, Curve]
    """`R² = 1 - Σ‖m - f‖² / Σ‖m - mean‖²` against t: m the model's prediction, f the field's, sums over queries (and seeds)."""
    relative_error: dict[str, Curve]
    """√(Σ‖u_m - u_f‖² / Σ‖u_m‖²) of velocities."""
    by_stage: dict[str, dict[str, Interval]]
    """Stage → field → R² over the times of a stage."""
    best: dict[str, tuple[str, str | None, Interval]]
    """Stage → the field of the largest R², the one that comes next, and by how much R² is larger."""
    ahead: dict[str, tuple[str, Interval]]
    """Stage → the best field besides the oracle, and its R² less the oracle's."""
    oracle_until: Interval | None
    """The t from which on, at every later t, another field explains more than the oracle by the margin; None where there is no such t."""

    def sure(self, stage: str) -> bool:
        """Whether the best field of a stage is told apart from the next."""
        return self.best[stage][2].low > 0


def explained(
    found: list[Distances],
    t: Float[np.ndarray, " T"],
    edges: tuple[float, float],
    *,
    margin: float = MARGIN,
    seed: int = 0,
    num_bootstrap: int = 500,
) -> Explained:
    """From distances of models that differ in their seed alone, at the same queries.

    Args:
      edges: of `stage_edges`.
      margin: of R², by which another field must be ahead of the oracle.

    Raises:
      ValueError: no models, fewer than two fields, or no oracle among them.
    """
    if not found or len(found[0].fields) < 2 or ORACLE not in found[0].fields:
        raise ValueError(f"{len(found)} models, fields {list(found[0].fields) if found else []}: expected a model, and oracle and others")
    names = list(found[0].fields)
    parts = [np.stack([one.fields[name] for one in found]) for name in names]
    parts += [np.stack([one.spread for one in found]), np.stack([one.motion for one in found])]
    means = [_again(part, seed, num_bootstrap) for part in parts]  # each [1 + R, T]; the first: as they are
    errors, spread, motion = np.stack(means[:-2]), means[-2], means[-1]  # [F, 1 + R, T]
    share, relative = 1 - errors / spread, np.sqrt(errors / motion)
    stage_of = np.digitize(t, edges)
    by_stage, best, ahead = {}, {}, {}
    own = names.index(ORACLE)
    for number, stage in enumerate(STAGES):
        chosen = stage_of == number
        if chosen.any():
            pooled = 1 - errors[..., chosen].sum(-1) / spread[:, chosen].sum(-1)  # [F, 1 + R]
            by_stage[stage] = {name: _interval(values) for name, values in zip(names, pooled, strict=True)}
            order = np.argsort(-pooled[:, 0], kind="stable")
            best[stage] = (names[order[0]], names[order[1]], _interval(pooled[order[0]] - pooled[order[1]]))
            other = next(index for index in order if index != own)
            ahead[stage] = (names[other], _interval(pooled[other] - pooled[own]))
    return Explained(
        {name: _curve(values) for name, values in zip(names, share, strict=True)},
        {name: _curve(values) for name, values in zip(names, relative, strict=True)},
        by_stage,
        best,
        ahead,
        _overtaken(share, own, t, margin),
    )


def _again(values: Float[np.ndarray, "S T Q"], seed: int, num_bootstrap: int) -> Float[np.ndarray, "R T"]:
    """Means over seeds and queries: as they are, and drawn again. The same draws for every array of one shape."""
    seeds, _, count = values.shape
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), num_bootstrap) / seeds
    of_queries = rng.multinomial(count, np.full(count, 1 / count), num_bootstrap) / count
    drawn = np.einsum("rs,stq,rq->rt", of_seeds, values, of_queries, optimize=True)
    return np.concatenate([values.mean((0, 2))[None], drawn])


def _curve(values: Float[np.ndarray, "R T"]) -> Curve:
    return Curve(values[0], *np.percentile(values[1:], PERCENTILES, axis=0))


def _interval(values: Float[np.ndarray, " R"]) -> Interval:
    return Interval(float(values[0]), *map(float, np.percentile(values[1:], PERCENTILES)))


def _overtaken(share: Float[np.ndarray, "F R T"], oracle: int, t: Float[np.ndarray, " T"], margin: float) -> Interval | None:
    """Where the largest R² of the others comes to exceed the oracle's by a margin, and stays so; linearly between two times."""
    ahead = np.delete(share, oracle, 0).max(0) - share[oracle] - margin  # > 0: overtaken
    later = np.cumprod((ahead > 0)[:, ::-1], axis=1)[:, ::-1].astype(bool)  # overtaken at this t and at every later one
    if not later[0].any():
        return None
    at = np.full(len(ahead), float(t[-1]))
    for row, (gaps, here) in enumerate(zip(ahead, later, strict=True)):
        if here.any():
            first = int(here.argmax())
            start, end = gaps[max(first - 1, 0)], gaps[first]
            at[row] = t[first] if first == 0 else t[first - 1] + (t[first] - t[first - 1]) * -start / (end - start)
    return _interval(at)
