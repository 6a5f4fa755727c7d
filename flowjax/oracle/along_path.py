"""What the posterior says along whole paths: the same pairs of noise and data at every time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.oracle.compiled import Coefficients, OracleOutput, Rows
from flowjax.path import Path
from kernels.posterior.cpu.path_tile import PathSums


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


def point(x_0: np.ndarray, x_1: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> Float[np.ndarray, "B D"]:
    """x_t of some pairs at their times, float64: beside near-duplicates float32 would show in the weights."""
    return alpha[:, None] * x_1.astype(np.float64) + sigma[:, None] * x_0.astype(np.float64)


def no_paths(times: int, pairs: int, *, gap: bool) -> PathOutput:
    """The output of no pairs, or at no times."""
    empty = jnp.zeros((times, pairs), jnp.float32)
    return PathOutput(empty, empty, empty.astype(jnp.int32), empty, empty, *((empty, empty) if gap else ()))


def by_times(
    evaluate: Callable[[Rows, Rows], OracleOutput], path: Path, x_0: Rows, x_1: Rows, t: Float[ArrayLike, " T"], *, gap: bool
) -> PathOutput:
    """By one evaluation for each time: where samples are not in the memory of one CPU.

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


def path_output_of(
    sums: PathSums, of: Coefficients, labels_mass: Float[np.ndarray, " B"], d: int, unit: float, *, gap: bool
) -> dict[str, np.ndarray]:
    """From the sums of the CPU engine to the fields of `PathOutput`, NumPy arrays in the caller's unit; float64.

    Args:
      labels_mass: log Σ prior of the samples that count for each pair.
      d: numbers in a sample.
      unit: of the samples.
    """
    sigma, rate = of.sigma[:, None], of.rate[:, None]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found = {
            "log_density": sums.log_weight - d / 2 * np.log(2 * np.pi * sigma**2) - labels_mass,
            "top1_weight": sums.top1_weight,
            "top1_index": sums.top1_index,
            "entropy": sums.entropy,
            "effective_samples": sums.effective_samples,
        }
        if gap:
            of_unit = (("cfm_gap", sums.variance), ("monte_carlo_gap", sums.square_distance))
            found |= {name: np.where(value == 0, value, (rate * unit) ** 2 * value) for name, value in of_unit}
    return found
