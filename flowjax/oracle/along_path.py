"""What the posterior says along whole paths: the same pairs of noise and data at every time."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.oracle.compiled import Coefficients, OracleOutput, Rows, coefficients
from flowjax.path import Path
from kernels.float64 import float64_scope
from kernels.posterior.api import run_paths
from kernels.posterior.cpu.path_tile import Paths, PathSums
from kernels.posterior.distributed.sharded import Sharded
from kernels.posterior.settings import PosteriorSettings
from kernels.posterior.types import Samples
from kernels.posterior.xla.paths import PathRows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathOutput:
    """What the posterior says at x_t = α_t x_1 + σ_t x_0, for B pairs at T times; float32. The fields are those of `OracleOutput`."""

    log_density: Float[Any, "T B"]
    """log p_t(x_t), nats."""
    top1_weight: Float[Any, "T B"]
    """max_i γ_i."""
    top1_index: Int[Any, "T B"]
    """Its sample, in the caller's order."""
    entropy: Float[Any, "T B"]
    """-Σ γ_i log γ_i, nats."""
    effective_samples: Float[Any, "T B"]
    """1 / Σ γ_i²."""
    cfm_gap: Float[Any, "T B"] | None = None
    """A_t² tr Cov[x_1 | x_t] = E‖u_cond - u*‖²."""
    monte_carlo_gap: Float[Any, "T B"] | None = None
    """A_t² ‖x_1 - E[x_1 | x_t]‖² = ‖u_cond - u*‖² of the pair itself: its mean over pairs of an oracle's own samples is that of
    `cfm_gap`, by the tower property."""


MOMENTS = tuple(f.name for f in dataclasses.fields(PathOutput) if f.name != "monte_carlo_gap")
"""Those that `OracleOutput` has too."""


AT_ONCE = 4096
"""Points that are evaluated together where a path leaves some."""
TIMES_AT_ONCE = 64
"""Times of which a compiled pass keeps sums: a TPU's VMEM holds those of 256 paths."""
LEAST_RATIO = 1e-30
"""α/σ for which 0 is taken along a path: all scores are equal there too."""


class PathQueries(NamedTuple):
    """Pairs of noise and data, and the times at which the host is asked about them."""

    paths: Paths
    t: Float[np.ndarray, " T"]
    of: Coefficients
    """Of the T times."""

    @classmethod
    def of_rows(cls, path: Path, x_0: Rows, x_1: Rows, t: Rows, label: Rows) -> "PathQueries":
        """From flat pairs `[B, D]`."""
        times = np.asarray(t)
        of = coefficients(path, times)
        ratio = np.maximum(of.alpha / np.where(of.sigma > 0, of.sigma, 1), LEAST_RATIO)
        return cls(Paths(np.asarray(x_0), np.asarray(x_1), np.asarray(label), ratio), times, of)

    def points(self, times: Int[np.ndarray, " m"], pairs: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m D"]:
        """x_t of some pairs at some times, float64: beside near-duplicates float32 would show in the weights."""
        alpha, sigma = self.of.alpha[times, None], self.of.sigma[times, None]
        return alpha * self.paths.x_1[pairs].astype(np.float64) + sigma * self.paths.x_0[pairs].astype(np.float64)


def no_paths(times: int, pairs: int, *, gap: bool) -> PathOutput:
    """The output of no pairs, or at no times."""
    empty = jnp.zeros((times, pairs), jnp.float32)
    return PathOutput(empty, empty, empty.astype(jnp.int32), empty, empty, *((empty, empty) if gap else ()))


def by_times(
    evaluate: Callable[[Rows, Rows], OracleOutput], path: Path, x_0: Rows, x_1: Rows, t: Float[ArrayLike, " T"], *, gap: bool
) -> PathOutput:
    """By one evaluation for each time: under tracing, and for the gaps on an accelerator or over a mesh.

    Args:
      evaluate: the output, flat, at x `[B, D]` and t `[B]`.
    """

    def at(time: Array) -> PathOutput:
        x_t = path.interpolate(jnp.asarray(x_0), jnp.asarray(x_1), time)
        out = evaluate(x_t, jnp.full(x_t.shape[0], time, jnp.float32))
        kept = {name: getattr(out, name) for name in MOMENTS}
        if not gap:
            return PathOutput(**kept | {"cfm_gap": None})
        off = out.velocity - path.conditional_velocity(jnp.asarray(x_0), jnp.asarray(x_1), time)
        return PathOutput(**kept, monte_carlo_gap=jnp.sum(off**2, axis=1))

    times = jnp.asarray(t, jnp.float32)
    if isinstance(times, jax.core.Tracer) or isinstance(x_0, jax.core.Tracer):
        return jax.lax.map(at, times)
    return jax.tree.map(lambda *rows: jnp.stack(rows), *(at(time) for time in times))


def by_products(
    samples: Samples | Sharded,
    how: PosteriorSettings,
    asked: PathQueries,
    evaluate: Callable[[Rows, Rows, Rows], OracleOutput],
) -> PathOutput:
    """By two products a pair of path and sample, compiled, without the gaps: on an accelerator and over a mesh.

    Args:
      evaluate: as in `by_sums`.

    Raises:
      NotImplementedError: as `run_paths`.
    """
    x_0, x_1, label, ratio = asked.paths
    parts = []
    with float64_scope():
        for start in range(0, len(ratio), TIMES_AT_ONCE):
            times = np.tile(ratio[start : start + TIMES_AT_ONCE], (len(x_0), 1))
            rows = PathRows(jnp.asarray(x_0), jnp.asarray(x_1), jnp.asarray(label), jnp.asarray(times))
            parts.append(jax.tree.map(lambda v: np.asarray(v).T, run_paths(rows, samples, how)))
    found = jax.tree.map(lambda *v: np.concatenate(v), *parts)
    none = np.full(found.answered.shape, np.nan)
    sums = PathSums(
        found.log_weight,
        found.top1_weight,
        found.top1_index,
        found.entropy,
        found.effective_samples,
        variance=none,
        square_distance=none,
        answered=found.answered,
    )
    return by_sums(sums, np.zeros(len(x_0)), 1.0, asked, evaluate, gap=False)


def path_output_of(
    sums: PathSums, of: Coefficients, masses: Float[np.ndarray, " B"], d: int, unit: float, *, gap: bool
) -> dict[str, np.ndarray]:
    """From the sums of the CPU engine to the fields of `PathOutput`, NumPy arrays in the caller's unit; float64.

    Args:
      masses: log Σ prior of the samples that count for each pair.
      d: numbers in a sample.
      unit: of the samples.
    """
    sigma, rate = of.sigma[:, None], of.rate[:, None]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found = {
            "log_density": sums.log_weight - d / 2 * np.log(2 * np.pi * sigma**2) - masses,
            "top1_weight": sums.top1_weight,
            "top1_index": sums.top1_index,
            "entropy": sums.entropy,
            "effective_samples": sums.effective_samples,
        }
        if gap:
            of_unit = (("cfm_gap", sums.variance), ("monte_carlo_gap", sums.square_distance))
            found |= {name: np.where(value == 0, value, (rate * unit) ** 2 * value) for name, value in of_unit}
    return found


def by_sums(
    sums: PathSums,
    masses: Float[np.ndarray, " B"],
    unit: float,
    asked: PathQueries,
    evaluate: Callable[[Rows, Rows, Rows], OracleOutput],
    *,
    gap: bool,
) -> PathOutput:
    """By the sums of the CPU engine; the points that these leave unanswered, and t = 1, by evaluations.

    Args:
      masses: log Σ prior of the samples that count for each pair.
      unit: that the sums are in.
      evaluate: the output, flat, at x `[B, D]`, t `[B]` and label `[B]`.
    """
    paths, of = asked.paths, asked.of
    columns = path_output_of(sums, of, masses, paths.x_0.shape[1], unit, gap=gap)
    left = np.argwhere(~sums.answered | (of.sigma == 0)[:, None])
    for start in range(0, len(left), AT_ONCE):
        times, pairs = left[start : start + AT_ONCE].T
        out = evaluate(asked.points(times, pairs), asked.t[times], paths.label[pairs])
        for name in columns.keys() & set(MOMENTS):
            columns[name][times, pairs] = np.asarray(getattr(out, name))
        if gap:
            off = np.sum((np.asarray(out.denoised, np.float64) - paths.x_1[pairs]) ** 2, axis=1)
            with np.errstate(invalid="ignore", over="ignore"):
                columns["monte_carlo_gap"][times, pairs] = np.where(off == 0, 0, of.rate[times] ** 2 * off)
    with np.errstate(over="ignore"):
        return PathOutput(**{name: jnp.asarray(v if v.dtype == np.int32 else v.astype(np.float32)) for name, v in columns.items()})
