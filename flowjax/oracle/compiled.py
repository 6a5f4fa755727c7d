"""The jitted programs of an oracle: from flat queries to `OracleOutput`, with their rules for `vmap` and reverse mode."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from flowjax.path import Path
from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.api import covariance_product64, posterior64
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.distributed.sharded import Sharded, spread
from kernels.posterior.settings import PosteriorSettings
from kernels.posterior.types import Moments, Queries, Samples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleOutput(Moments):
    """Velocity and moments of the posterior at `B` points; float32. `moments="velocity"` leaves all but `velocity` and `denoised` None.

    `denoised` is E[x_1 | x_t], `log_density` log p_t(x_t) over the samples of the query's class, `top1_index` the sample in the caller's
    order (-1 where x is NaN), `variance` tr Cov[x_1 | x_t]; the others are as in `Moments`.
    """

    denoised: Float[Array, "B *shape"]
    """E[x_1 | x_t]."""
    velocity: Float[Array, "B *shape"]
    """u*(x, t) = E[u_cond | x_t = x] = α' E[x_1 | x_t] + σ' (x - α E[x_1 | x_t]) / σ."""
    cfm_gap: Float[Array, " B"] | None = None
    """A_t² · variance = E‖u_cond - u*‖² at this point."""
    divergence: Float[Array, " B"] | None = None
    """∇·u* = A_t (α_t/σ_t²) · variance + D · B_t."""


def empty_output(shape: tuple[int, ...], *, full: bool) -> OracleOutput:
    """The output of no queries."""
    rows, none = jnp.zeros((0, *shape), jnp.float32), jnp.zeros(0, jnp.float32)
    if not full:
        return OracleOutput(velocity=rows, denoised=rows)
    more = {f.name: none for f in dataclasses.fields(OracleOutput)}
    return OracleOutput(**more | {"velocity": rows, "denoised": rows, "top1_index": jnp.zeros(0, jnp.int32)})


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static half of an oracle."""

    path: Path
    shape: tuple[int, ...]
    how: PosteriorSettings


def _evaluate(spec: Spec, samples: Samples | Sharded, x: Array, t: Array, label: Array) -> OracleOutput:
    """`OracleOutput` of flat queries `[B, D]`. Arrays without an axis of N are float64, up to the last subtraction."""
    with float64_scope():
        x, t = _valid(x, t)
        time = to64(t)
        alpha, sigma = spec.path.alpha(time), spec.path.sigma(time)
        queries = Queries(x, alpha, sigma, label, velocity_center(spec.path, time))
        found = spread(posterior64, (queries,), samples, spec.how)
        return _output(spec.path, samples.d, x, time, found)


def _output(path: Path, d: int, x: Array, time: Array, found: Moments) -> OracleOutput:
    """From the posterior's moments, float64, to the oracle's output."""
    alpha, sigma, alpha_dot, sigma_dot = (f(time) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
    at_end = sigma == 0
    safe_sigma, safe_sigma_dot = jnp.where(at_end, 1, sigma), jnp.where(at_end, 0, sigma_dot)
    noise = (to64(x) - alpha[:, None] * found.denoised) / safe_sigma[:, None]
    velocity = alpha_dot[:, None] * found.denoised + safe_sigma_dot[:, None] * noise
    velocity = jnp.where(at_end[:, None], _velocity_at_end(path, to64(x), found.denoised), velocity)
    if found.variance is None:
        return OracleOutput(velocity=to32(velocity), denoised=to32(found.denoised))
    a = alpha_dot - alpha * sigma_dot / sigma
    # Where the variance is 0 its limit is, though A is infinite at t = 1: it falls exponentially in 1/σ².
    gap, stretch = (jnp.where(found.variance == 0, found.variance, rate * found.variance) for rate in (a**2, a * alpha / sigma**2))
    more = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    more |= {"velocity": velocity, "cfm_gap": gap, "divergence": stretch + d * sigma_dot / sigma}
    return OracleOutput(**{name: v if v.dtype == jnp.int32 else to32(v) for name, v in more.items()})


Rows = Array | np.ndarray
"""Arrays with a row for each query: NumPy arrays where the host computes."""


class Coefficients(NamedTuple):
    """Coefficients of a path at `B` times, on the host, float64: u* = A E[x_1 | x_t] + B x = A (E[x_1 | x_t] - κ x)."""

    alpha: Float[np.ndarray, " B"]
    sigma: Float[np.ndarray, " B"]
    center: Float[np.ndarray, " B"]
    """κ."""
    rate: Float[np.ndarray, " B"]
    """A; infinite or NaN at t = 1."""
    stretch: Float[np.ndarray, " B"]
    """B; infinite or NaN at t = 1."""


def coefficients(path: Path, t: Float[np.ndarray, " B"]) -> Coefficients:
    """The coefficients of a path at these times."""
    if (t == t[0]).all():
        return Coefficients(*np.repeat(_at_one(path, float(t[0])), len(t), axis=1))
    distinct, own = np.unique(t, return_inverse=True)
    room = np.resize(distinct, max(8, 1 << (len(distinct) - 1).bit_length()))  # few sizes, and so few programs
    with float64_scope():
        return Coefficients(*np.ascontiguousarray(np.asarray(_of_times(path)(jnp.asarray(room)))[:, own]))


@functools.lru_cache(maxsize=4096)
def _at_one(path: Path, t: float) -> Float[np.ndarray, "5 1"]:
    with float64_scope():
        return np.asarray(_of_times(path)(jnp.full(8, t, jnp.float32)))[:, :1]


@functools.cache
def _of_times(path: Path) -> Callable[[Array], Array]:
    def found(t: Array) -> Array:
        time = to64(t)
        return jnp.stack([path.alpha(time), path.sigma(time), velocity_center(path, time), path.A(time), path.B(time)])

    return jax.jit(found)


def output_of(answer: HostMoments, of: Coefficients, spec: Spec, x: Float[np.ndarray, "B D"]) -> OracleOutput:
    """From the moments of the CPU engine to the oracle's output, in NumPy arrays."""
    shape = (len(x), *spec.shape)
    at_end = np.flatnonzero(of.sigma == 0)
    if at_end.size:
        nearest, own = answer.denoised[at_end].astype(np.float64), x[at_end].astype(np.float64)
        answer.velocity[at_end] = np.asarray(_velocity_at_end(spec.path, own, nearest))
    # NumPy arrays, until `by_host` has them all
    vectors: dict[str, Any] = {"velocity": answer.velocity.reshape(shape), "denoised": answer.denoised.reshape(shape)}
    if not spec.how.full:
        return OracleOutput(**vectors)
    some = answer.variance > 0  # where it is 0 its limit is, though A is infinite at t = 1: it falls exponentially in 1/σ²
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = np.where(some, of.rate**2 * answer.variance, answer.variance)
        divergence = (
            np.where(some, of.rate * of.alpha / of.sigma**2 * answer.variance, answer.variance) + answer.denoised.shape[1] * of.stretch
        )
    vectors |= {name: getattr(answer, name) for name in _SAME} | {"cfm_gap": gap, "divergence": divergence}
    return OracleOutput(**vectors)


_SAME = [f.name for f in dataclasses.fields(Moments) if f.name != "denoised"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def finished(path: Path, d: int, x: Array, t: Array, found: Moments) -> OracleOutput:
    """From moments of another engine to the oracle's output."""
    return _output(path, d, x, to64(t), found)


def velocity_center(path: Path, t: Float[Array, " B"]) -> Float[Array, " B"]:
    """κ in `u* = A (E[x_1 | x_t] - κ x)`: -B/A, 1 for rectified flow. Not used at t = 1, where it need not be finite."""
    inside = jnp.where(t < 1, t, 0.5)
    return -path.B(inside) / path.A(inside)


def _velocity_at_end(path: Path, x: Rows, nearest: Rows) -> Rows:
    """The velocity at t = 1: its limit at a sample, NaN elsewhere; in NumPy or JAX arrays."""
    some: Any = np if isinstance(x, np.ndarray) else jnp
    away = some.sum((x - nearest) ** 2, axis=1) > 1e-24 * some.sum(nearest**2, axis=1)
    velocity: Rows = some.where(away[:, None], some.nan, path.velocity_scale_at_sample * x)
    return velocity


def _jacobian_product(spec: Spec, samples: Samples | Sharded, x: Array, t: Array, label: Array, v: Array) -> Float[Array, "B D"]:
    with float64_scope():
        x, t = _valid(x, t)
        time = to64(t)
        alpha, sigma = spec.path.alpha(time), spec.path.sigma(time)
        queries = Queries(x, alpha, sigma, label, velocity_center(spec.path, time))
        covariance = spread(covariance_product64, (queries, v), samples, spec.how)
        rate = spec.path.A(time) * alpha / sigma**2
        stretched = jnp.where(covariance == 0, covariance, rate[:, None] * covariance)
        return to32(stretched + spec.path.B(time)[:, None] * to64(v))


def _valid(x: Array, t: Array) -> tuple[Array, Array]:
    """Rows with a t outside [0, 1] become NaN: under tracing they cannot raise an error."""
    inside = (t >= 0) & (t <= 1)
    return jnp.where(inside[:, None], x, jnp.nan), jnp.where(inside, t, 0.5)


@dataclasses.dataclass(frozen=True)
class Program:
    """What an oracle computes, each from `(samples, x [B, D], t [B], label [B])` and `jvp` from a `v [B, D]` too."""

    evaluate: Callable[..., OracleOutput]
    jvp: Callable[..., Array]


@functools.cache
def program_of(spec: Spec) -> Program:
    """The two programs of an oracle, jitted, with their rules for `vmap` (fold into the batch) and reverse mode (one more pass)."""
    evaluate = folding(functools.partial(_evaluate, spec))
    jvp = _first_order(folding(functools.partial(_jacobian_product, spec)))
    once = _first_order(evaluate)

    @jax.custom_vjp
    def differentiable(samples: Samples | Sharded, x: Array, t: Array, label: Array) -> OracleOutput:
        return evaluate(samples, x, t, label)

    def forward(samples: Samples | Sharded, x: Any, t: Any, label: Any) -> tuple[OracleOutput, tuple[Any, ...]]:
        if t.perturbed or any(leaf.perturbed for leaf in jax.tree.leaves(samples)):
            raise NotImplementedError("the oracle is differentiable in x_t only, not in t or the data")
        plain = jax.tree.map(lambda leaf: leaf.value, samples)
        return once(plain, x.value, t.value, label.value), (plain, x.value, t.value, label.value)

    def backward(saved: tuple[Any, ...], cotangent: OracleOutput) -> tuple[None, Array, None, None]:
        for field in dataclasses.fields(cotangent):
            given = getattr(cotangent, field.name)
            if field.name != "velocity" and given is not None and not isinstance(given, SymbolicZero):
                raise NotImplementedError(f"OracleOutput.{field.name} is not differentiable; velocity is, in x_t")
        of_velocity = cotangent.velocity
        if isinstance(of_velocity, SymbolicZero):
            return None, jnp.zeros(of_velocity.shape, of_velocity.dtype), None, None
        return None, jvp(*saved, of_velocity), None, None

    differentiable.defvjp(forward, backward, symbolic_zeros=True)
    return Program(jax.jit(differentiable), jax.jit(jvp))


def _first_order(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, with an error where it is differentiated: the reverse rule calls it, so that its derivative is of second order."""

    @jax.custom_jvp
    def whole(*arguments: Any) -> Any:
        return f(*arguments)

    @whole.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of the oracle are not available: take differences of oracle.jvp, or of the velocity's gradient"
        )

    return whole


FORWARD = (
    "the oracle has no forward-mode rule (jax.jvp, jax.jacfwd): oracle.jvp(x_t, t, v) is the Jacobian of the velocity times v, and "
    "jax.grad, jax.vjp and jax.jacrev work"
)


def folding(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f(samples, *rows)`, all rows `[B, ...]`, under `vmap` one call with a batch of V·B rows. `samples` may be any pytree."""

    @custom_vmap
    def folded(samples: Any, *rows: Array) -> Any:
        return f(samples, *rows)

    @folded.def_vmap
    def rule(size: int, batched: list[Any], samples: Any, *rows: Array) -> tuple[Any, Any]:
        if any(jax.tree.leaves(batched[0])):
            raise NotImplementedError("vmap over the oracle's data is not available; vmap over x_t, t and label is")
        full = [v if is_batched else jnp.broadcast_to(v, (size, *v.shape)) for v, is_batched in zip(rows, batched[1:], strict=True)]
        out = folded(samples, *(v.reshape(-1, *v.shape[2:]) for v in full))
        unfolded = jax.tree.map(lambda v: v.reshape(size, -1, *v.shape[1:]), out)
        return unfolded, jax.tree.map(lambda _: True, unfolded)

    return folded
