"""The oracle: the marginal velocity of flow matching on a finite data set, in closed form, and what the posterior says."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.distinct import distinct
from flowjax.path import Path, RectifiedFlow
from kernels.double import float64_scope, to32, to64
from kernels.posterior.api import (
    Moments,
    Which,
    as_samples,
    covariance_product64,
    moments_of,
    plan,
    posterior64,
    where_left,
)
from kernels.posterior.blocks import BlockSizes, Precision
from kernels.posterior.plan import Plan
from kernels.posterior.samples import Samples, by_class, prepare
from kernels.posterior.sharded import Sharded, check_mesh, shard_samples, spread
from kernels.posterior.skipping import Skipping
from kernels.posterior.tpu_blocks import TpuBlocks

LEAST_TILE = 8
"""Queries that a dense pass takes together at least: fewer make poor matrix products."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OracleOutput:
    """What the posterior over the samples says at `B` points; float32. `moments="velocity"` leaves all but the first two None."""

    velocity: Float[Array, "B *shape"]
    """u*(x, t) = E[u_cond | x_t = x] = α' E[x_1 | x_t] + σ' (x - α E[x_1 | x_t]) / σ."""
    denoised: Float[Array, "B *shape"]
    """E[x_1 | x_t]."""
    log_density: Float[Array, " B"] | None = None
    """log p_t(x_t), nats, over the samples of the query's class."""
    top1_weight: Float[Array, " B"] | None = None
    """max_i γ_i."""
    top1_index: Int[Array, " B"] | None = None
    """Its sample, in the caller's order; ties go to the lowest index. -1 where x is NaN."""
    entropy: Float[Array, " B"] | None = None
    """-Σ γ_i log γ_i, nats."""
    effective_samples: Float[Array, " B"] | None = None
    """1 / Σ γ_i²."""
    variance: Float[Array, " B"] | None = None
    """tr Cov[x_1 | x_t]."""
    cfm_gap: Float[Array, " B"] | None = None
    """A_t² · variance = E‖u_cond - u*‖² at this point."""
    divergence: Float[Array, " B"] | None = None
    """∇·u* = A_t (α_t/σ_t²) · variance + D · B_t."""
    error_bound: Float[Array, " B"] | None = None
    """Bound on ‖denoised - exact‖₂ from samples left out; 0 = none (rounding excluded)."""


@dataclasses.dataclass(frozen=True)
class _Spec:
    """The static half of an oracle."""

    path: Path
    shape: tuple[int, ...]
    how: Plan


@jax.tree_util.register_pytree_node_class
class Oracle:
    """The exact marginal velocity of a finite data set, `u*(x, t) = A_t Σ_i γ_i(x, t) x_1^(i) + B_t x`.

    `γ_i(x, t) = softmax_i(-‖x - α_t x_1^(i)‖² / 2σ_t²)`: a softmax-weighted mean of the samples (arXiv 2512.02826, Theorem 2.1). With
    a label, the sum runs over the samples of that class only.

        oracle = Oracle(images, labels)
        out = oracle(x_t, t, label)                     # x_t [B, *shape], t scalar or [B], label None or [B]
        jax.jit(lambda o, x, t: o(x, t))(oracle, x, t)  # pass it as an argument: a closure would bake the data in

    A pytree. `jax.vmap` over x_t, t or label folds into the batch. Differentiable in reverse mode in x_t, through `velocity` alone;
    `jvp` is the forward mode. Data stay in their dtype (float32, bfloat16, uint8); queries are read as float32; results are float32.
    Exact at `precision="highest"`: velocity within 1e-5 of float64 fed the same numbers, at every t in [0.001, 0.999].

    At t = 1 it is the limit: the nearest sample (ties equal), velocity `path.velocity_scale_at_sample · x` at a sample, NaN elsewhere.

    Args:
      data: `[N, *shape]` samples; or what `shard_samples` made of those that each process has loaded itself.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; static.
      precision: of the matmuls: "highest", "high" or "default"; see `kernels.posterior.Precision`.
      implementation, block_sizes: how the posterior is computed; None: the default of the device. On a CPU that is, call by call, a dense
        pass or "sketch", which skips the samples that provably do not matter; `plan` says which, and why.
      mesh: of devices, with the axes "samples" and "queries": the samples are dealt over the one, the queries over the other. Results are
        as on one device, but for float32 rounding. Not under tracing.
      tolerance: share of a query's posterior weight whose samples `denoised` may lack, where an implementation can pass over them
        ("pallas_tpu": whole blocks of the data; "sketch": samples one by one); `error_bound` says what that did. 0: no more than
        float32 rounding hides: 1e-7 of the weight, less where the query lies close to a sample.
      counts: `[N]` how often each sample counts (`unique` sets it), or None: once each. Weights are then those of all copies together.

    Raises:
      ValueError: NaN in the data, no samples, labels that do not fit, a mesh without the two axes or with more shards than samples.
      NotImplementedError: an implementation that this version does not have.
    """

    def __init__(
        self,
        data: ArrayLike | Sharded,
        labels: ArrayLike | None = None,
        *,
        path: Path | None = None,
        mesh: Mesh | None = None,
        precision: Precision = "highest",
        implementation: str | None = None,
        block_sizes: BlockSizes | TpuBlocks | None = None,
        tolerance: float = 0.0,
        counts: ArrayLike | None = None,
    ):
        path = RectifiedFlow() if path is None else path
        if not isinstance(path, Path):
            raise ValueError(f"path must be a flowjax.path.Path, got {path!r}")
        how = plan("all", implementation, block_sizes, precision, tolerance=tolerance)
        self._samples: Samples | Sharded
        self._skipping = Skipping(always=implementation == "sketch") if implementation in (None, "sketch") else None
        if mesh is not None or isinstance(data, Sharded):
            if implementation == "sketch":
                raise NotImplementedError("implementation 'sketch' is for samples in the memory of one host; got a mesh")
            self._samples = _sharded(data, labels, counts, mesh)
            self._spec = _Spec(path, self._samples.shape, how)
            return
        values = as_samples(data, "data")
        n, shape = values.shape[0], values.shape[1:]
        self._spec = _Spec(path, shape, how)
        flat, classes, weights = values.reshape(n, -1), _labels(labels, n), _counts(counts, n)
        self._samples = prepare(flat, None, weights) if classes is None else by_class(flat, classes, weights)

    @classmethod
    def from_source(
        cls,
        source: Any,
        labels: ArrayLike | None = None,
        *,
        path: Path | None = None,
        budget: int = 2**30,
        precision: Precision = "highest",
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> "Oracle":
        """The oracle of data that stay on disk, read within `budget` bytes of memory: see `flowjax.source_oracle.SourceOracle`."""
        from flowjax.source_oracle import SourceOracle  # which is an Oracle: it imports this module

        return SourceOracle(source, labels, path=path, budget=budget, precision=precision, progress=progress)

    @property
    def data(self) -> Array:
        """The samples, `[N, *shape]`, as given. Over a mesh: gathered on one device, if this process has them all."""
        return self._in_order("values").reshape(self._samples.n, *self._spec.shape)

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """The class of each sample, or None."""
        return None if self._prepared.labels is None else self._in_order("labels")

    @property
    def conditional(self) -> bool:
        """Whether a label can be given: the samples have classes."""
        return self._prepared.labels is not None

    @property
    def counts(self) -> Float[Array, " N"] | None:
        """How often each sample counts; None: once each."""
        if self._prepared.log_prior is None or (isinstance(self._samples, Sharded) and not self._samples.counted):
            return None
        return jnp.exp(self._in_order("log_prior"))

    @property
    def mesh(self) -> Mesh | None:
        """The devices that hold the samples; None: one."""
        return self._samples.mesh if isinstance(self._samples, Sharded) else None

    @property
    def _prepared(self) -> Samples:
        return self._samples.samples if isinstance(self._samples, Sharded) else self._samples

    def _in_order(self, field: str) -> Array:
        """A field of the samples, in the caller's order."""
        rows = getattr(self._prepared, field)
        return jnp.asarray(self._samples.in_order(rows))

    @property
    def path(self) -> Path:
        """The probability path."""
        return self._spec.path

    @property
    def implementation(self) -> str:
        """What computes the posterior."""
        return self._spec.how.implementation

    @property
    def _asked(self) -> str | None:
        """The implementation as it was asked for."""
        return None if self._skipping is not None and not self._skipping.always else self.implementation

    def __repr__(self) -> str:
        labels = "no" if self._prepared.labels is None else "yes"
        return f"Oracle(n={self._samples.n}, shape={self._spec.shape}, path={self.path}, labels={labels})"

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None, *, moments: Which = "all") -> OracleOutput:
        """The velocity, and what the posterior says, at `B` points.

        Args:
          x_t: `[B, *shape]`.
          t: scalar or `[B]`, in [0, 1]; 0 is noise.
          label: None, a scalar or `[B]`: the class to condition on; -1 in a row: all samples.
          moments: "velocity" (static) computes velocity and denoised, and nothing else: for training.

        Raises:
          ValueError: shapes that do not fit, t outside [0, 1], NaN in x_t, a label without samples. Under tracing, where values cannot
            be seen, such a row gives NaN.
        """
        x, t, label = self._arguments(x_t, t, label)
        seen = all(_seen(v) for v in (x, t, label, *jax.tree.leaves(self._samples)))
        spec = self._spec_for(t, moments, seen)
        if seen and self._prepared.by_class and spec.how.implementation == "streaming":
            spec = _tiled_by_class(spec, np.asarray(label))
        out = self._by_sketch(spec, x, t, label) if seen else None
        if out is None:
            out = _program(spec).evaluate(self._samples, x, t, label)
        shape = (x.shape[0], *self._spec.shape)
        return dataclasses.replace(out, velocity=out.velocity.reshape(shape), denoised=out.denoised.reshape(shape))

    def jvp(self, x_t: ArrayLike, t: ArrayLike, v: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The Jacobian of the velocity times v: `A_t (α_t/σ_t²) Cov[x_1 | x_t] v + B_t v`.

        The Jacobian is symmetric, so this is the vector-Jacobian product too. No D x D matrix is formed: it is one more pass.

        Args:
          x_t, t, label: as in `__call__`.
          v: `[B, *shape]`.

        Raises:
          ValueError: as `__call__`, and a v that is not of x_t's shape.
        """
        x, t, label = self._arguments(x_t, t, label)
        shape = (x.shape[0], *self._spec.shape)
        v = jnp.asarray(v).astype(jnp.float32)
        if v.shape != shape:
            raise ValueError(f"v must have x_t's shape {shape}, got {v.shape}")
        v = self._placed(v.reshape(x.shape))
        return _program(self._spec_for(t, "all", _seen(x))).jvp(self._samples, x, t, label, v).reshape(shape)

    def plan(self, t: ArrayLike) -> str:
        """How queries at these times are computed, and why, in words and figures: a line for each t. Makes the sketch if it is needed.

        Args:
          t: scalar or `[T]`, in [0, 1].
        """
        lines = []
        for time in np.atleast_1d(np.asarray(t, np.float32)):
            alpha, sigma, _ = _coefficients(self._spec.path, np.full(1, time, np.float32))
            lines.append(f"t = {time:.4g}: {self._explained(float(alpha[0]), float(sigma[0]))}")
        return "\n".join(lines)

    def _explained(self, alpha: float, sigma: float) -> str:
        if self._skipping is None or isinstance(self._samples, Sharded) or not self._skipping.possible(self._samples, self._spec.how):
            return f"{self.implementation}: " + ("samples over several devices" if self.mesh else "as asked for, or the default here")
        return str(self._skipping.choice(self._samples, alpha, sigma))

    def _by_sketch(self, spec: _Spec, x: Array, t: Array, label: Array) -> OracleOutput | None:
        """The same, without going through all samples for the queries where that is cheaper; None where there are none."""
        if self._skipping is None or isinstance(self._samples, Sharded) or not self._skipping.possible(self._samples, spec.how):
            return None
        queries = np.asarray(x, np.float64), *_coefficients(spec.path, np.asarray(t)), np.asarray(label)
        found = self._skipping(self._samples, *queries, tolerance=spec.how.tolerance)
        if found is None:
            return None
        with float64_scope():
            out = _finished(spec.path, self._samples.d, x, t, moments_of(found, spec.how.full))
        return where_left(found, out, lambda rows: _program(spec).evaluate(self._samples, x[rows], t[rows], label[rows]))

    def unique(self, *, by_class: bool = True) -> "Oracle":
        """The oracle of the same data with exact duplicates merged, and `counts` set; its weights are those of distinct samples.

        Order: first occurrence. The velocity is the same. Not under tracing.

        Args:
          by_class: equal samples of different classes stay apart; False merges them and drops the labels.
        """
        found = distinct(
            np.asarray(self._in_order("values")),
            np.asarray(self.labels) if by_class and self.labels is not None else None,
            None if self.counts is None else np.asarray(self.counts),
        )
        return Oracle(
            found.values.reshape(-1, *self._spec.shape),
            found.labels,
            path=self.path,
            mesh=self.mesh,
            precision=self._spec.how.precision,
            implementation=self._asked,
            block_sizes=self._spec.how.chosen_blocks,
            tolerance=self._spec.how.tolerance,
            counts=found.counts,
        )

    def _spec_for(self, t: Array, moments: Which, seen: bool) -> _Spec:
        """The static half of one call: what is known of it before it is compiled. What a sketch leaves takes a dense pass."""
        full = plan(moments, None, None, self._spec.how.precision).full
        limit = not _seen(t) or bool((t == 1).any())
        name = "streaming" if seen and self.implementation == "sketch" else self.implementation
        return dataclasses.replace(self._spec, how=dataclasses.replace(self._spec.how, full=full, limit=limit, implementation=name))

    def _arguments(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None) -> tuple[Array, Array, Array]:
        """x `[B, D]`, t `[B]`, label `[B]`, with every value checked that can be seen."""
        x = jnp.asarray(x_t).astype(jnp.float32)
        if x.ndim == 0 or x.shape[1:] != self._spec.shape:
            raise ValueError(f"x_t must have shape {('B', *self._spec.shape)}, a batch of samples; got {x.shape}")
        b = x.shape[0]
        t = jnp.asarray(t).astype(jnp.float32)
        if t.shape not in ((), (b,)):
            raise ValueError(f"t must be a scalar or of shape ({b},), got shape {t.shape}")
        if _seen(t) and not ((t >= 0) & (t <= 1)).all():
            raise ValueError(f"t must lie in [0, 1], got {float(t.ravel()[jnp.argmin((t >= 0) & (t <= 1))])!r}")
        if _seen(x) and not jnp.isfinite(x).all():
            raise ValueError(f"x_t has NaN or infinity in row {int(jnp.argmin(jnp.isfinite(x.reshape(b, -1)).all(axis=1)))}")
        flat = x.reshape(b, self._samples.d), jnp.broadcast_to(t, (b,)), self._query_labels(label, b)
        x, t, label = (self._placed(v) for v in flat)
        return x, t, label

    def _placed(self, rows: Array) -> Array:
        return self._samples.place(rows) if isinstance(self._samples, Sharded) else rows

    def _query_labels(self, label: ArrayLike | None, b: int) -> Int[Array, " B"]:
        if label is None:
            return jnp.full(b, -1, jnp.int32)
        if self._prepared.labels is None:
            raise ValueError("label was given, but the oracle has no labels: build it as Oracle(data, labels)")
        label = jnp.asarray(label)
        if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape not in ((), (b,)):
            raise ValueError(f"label must be an integer or integers of shape ({b},), got {label.dtype} of shape {label.shape}")
        if _seen(label) and isinstance(self._samples, Sharded) and _seen(self._prepared.labels):
            known = self._samples.has_class(jnp.atleast_1d(label).astype(jnp.int32))
            if not known.all():
                raise ValueError(f"label {np.atleast_1d(label)[known.argmin()]} has no samples")
        elif _seen(label) and _seen(self._prepared.labels):
            there = np.union1d(np.asarray(self.labels), -1)
            unknown = np.setdiff1d(np.asarray(label), there)
            if unknown.size:
                raise ValueError(f"label {unknown[0]} has no samples; classes with samples: {_listed(there[there >= 0])}")
        return jnp.broadcast_to(label.astype(jnp.int32), (b,))

    def tree_flatten(self) -> tuple[tuple[Samples | Sharded], tuple[_Spec, Skipping | None]]:
        return (self._samples,), (self._spec, self._skipping and self._skipping.fresh())

    @classmethod
    def tree_unflatten(cls, static: tuple[_Spec, Skipping | None], children: tuple[Samples | Sharded]) -> "Oracle":
        oracle = object.__new__(cls)
        (oracle._spec, skipping), (oracle._samples,) = static, children
        oracle._skipping = skipping and skipping.fresh()
        return oracle


def _evaluate(spec: _Spec, samples: Samples | Sharded, x: Array, t: Array, label: Array) -> OracleOutput:
    """`OracleOutput` on flat queries `[B, D]`. What is small is float64, from here to the last subtraction."""
    with float64_scope():
        x, t = _valid(x, t)
        time = to64(t)
        alpha, sigma = spec.path.alpha(time), spec.path.sigma(time)
        found = spread(posterior64, (x, alpha, sigma, label, _still(spec.path, time)), samples, spec.how)
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
        return OracleOutput(to32(velocity), to32(found.denoised))
    a = alpha_dot - alpha * sigma_dot / sigma
    # Where the variance is 0 its limit is, though A is infinite at t = 1: it falls exponentially in 1/σ².
    gap, stretch = (jnp.where(found.variance == 0, found.variance, rate * found.variance) for rate in (a**2, a * alpha / sigma**2))
    more = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    more |= {"velocity": velocity, "cfm_gap": gap, "divergence": stretch + d * sigma_dot / sigma}
    return OracleOutput(**{name: v if v.dtype == jnp.int32 else to32(v) for name, v in more.items()})


@functools.cache
def _of_times(path: Path) -> Callable[[Array], tuple[Array, Array, Array]]:
    return jax.jit(lambda t: (path.alpha(to64(t)), path.sigma(to64(t)), _still(path, to64(t))))


def _coefficients(path: Path, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """α, σ and κ on the host, float64."""
    with float64_scope():
        alpha, sigma, still = (np.asarray(v) for v in _of_times(path)(jnp.asarray(t)))
    return alpha, sigma, still


@functools.partial(jax.jit, static_argnums=(0, 1))
def _finished(path: Path, d: int, x: Array, t: Array, found: Moments) -> OracleOutput:
    return _output(path, d, x, to64(t), found)


def _tiled_by_class(spec: _Spec, label: np.ndarray) -> _Spec:
    """Tiles of about one class each, so that the cost follows the classes' sizes; of few sizes, so that there are few programs."""
    classes = len(np.unique(label))
    tile = max(LEAST_TILE, 1 << (len(label) // max(classes, 1)).bit_length() - 1) if classes > 1 else len(label)
    blocks = spec.how.blocks
    if tile >= min(blocks.queries, len(label)):
        return spec
    return dataclasses.replace(spec, how=dataclasses.replace(spec.how, blocks=dataclasses.replace(blocks, queries=tile)))


def _still(path: Path, t: Float[Array, " B"]) -> Float[Array, " B"]:
    """κ in `u* = A (E[x_1 | x_t] - κ x)`: -B/A, 1 for rectified flow. Not used at t = 1, where it need not be finite."""
    inside = jnp.where(t < 1, t, 0.5)
    return -path.B(inside) / path.A(inside)


def _velocity_at_end(path: Path, x: Float[Array, "B D"], nearest: Float[Array, "B D"]) -> Float[Array, "B D"]:
    away = jnp.sum((x - nearest) ** 2, axis=1) > 1e-24 * jnp.sum(nearest**2, axis=1)
    return jnp.where(away[:, None], jnp.nan, path.velocity_scale_at_sample * x)


def _jacobian_product(spec: _Spec, samples: Samples | Sharded, x: Array, t: Array, label: Array, v: Array) -> Float[Array, "B D"]:
    with float64_scope():
        x, t = _valid(x, t)
        time = to64(t)
        alpha, sigma = spec.path.alpha(time), spec.path.sigma(time)
        covariance = spread(covariance_product64, (x, alpha, sigma, label, _still(spec.path, time), v), samples, spec.how)
        rate = spec.path.A(time) * alpha / sigma**2
        stretched = jnp.where(covariance == 0, covariance, rate[:, None] * covariance)
        return to32(stretched + spec.path.B(time)[:, None] * to64(v))


def _valid(x: Array, t: Array) -> tuple[Array, Array]:
    """Rows with a t outside [0, 1] become NaN: under tracing nobody could refuse them."""
    inside = (t >= 0) & (t <= 1)
    return jnp.where(inside[:, None], x, jnp.nan), jnp.where(inside, t, 0.5)


@dataclasses.dataclass(frozen=True)
class _Program:
    evaluate: Callable[..., OracleOutput]
    jvp: Callable[..., Array]


@functools.cache
def _program(spec: _Spec) -> _Program:
    """The two programs of an oracle, jitted, with their rules for `vmap` (fold into the batch) and reverse mode (one more pass)."""
    evaluate = _folding(functools.partial(_evaluate, spec))
    jvp = _folding(functools.partial(_jacobian_product, spec))

    @jax.custom_vjp
    def differentiable(samples: Samples | Sharded, x: Array, t: Array, label: Array) -> OracleOutput:
        return evaluate(samples, x, t, label)

    def forward(samples: Samples | Sharded, x: Any, t: Any, label: Any) -> tuple[OracleOutput, tuple[Any, ...]]:
        if t.perturbed or any(leaf.perturbed for leaf in jax.tree.leaves(samples)):
            raise NotImplementedError("the oracle is differentiable in x_t only, not in t or the data")
        plain = jax.tree.map(lambda leaf: leaf.value, samples)
        return evaluate(plain, x.value, t.value, label.value), (plain, x.value, t.value, label.value)

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
    return _Program(jax.jit(differentiable), jax.jit(jvp))


def _folding(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f(samples, *rows)`, all rows `[B, ...]`, under `vmap` one call with a batch of V·B rows."""

    @custom_vmap
    def folded(samples: Samples | Sharded, *rows: Array) -> Any:
        return f(samples, *rows)

    @folded.def_vmap
    def rule(size: int, batched: list[Any], samples: Samples | Sharded, *rows: Array) -> tuple[Any, Any]:
        if any(jax.tree.leaves(batched[0])):
            raise NotImplementedError("vmap over the oracle's data is not available; vmap over x_t, t and label is")
        full = [v if is_batched else jnp.broadcast_to(v, (size, *v.shape)) for v, is_batched in zip(rows, batched[1:], strict=True)]
        out = folded(samples, *(v.reshape(-1, *v.shape[2:]) for v in full))
        unfolded = jax.tree.map(lambda v: v.reshape(size, -1, *v.shape[1:]), out)
        return unfolded, jax.tree.map(lambda _: True, unfolded)

    return folded


def _seen(x: Array | np.ndarray) -> bool:
    return not isinstance(x, jax.core.Tracer)


def _labels(labels: ArrayLike | None, n: int) -> Int[Array, " N"] | None:
    if labels is None:
        return None
    labels = jnp.asarray(labels)
    if labels.shape != (n,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be {n} integers, one per sample; got {labels.dtype} of shape {labels.shape}")
    if _seen(labels) and (np.asarray(labels) < 0).any():
        raise ValueError(f"labels must be >= 0 (-1 asks for all samples in a query), got {int(labels.min())}")
    return labels.astype(jnp.int32)


def _counts(counts: ArrayLike | None, n: int) -> Float[Array, " N"] | None:
    if counts is None:
        return None
    counts = jnp.asarray(counts).astype(jnp.float32)
    if counts.shape != (n,) or (_seen(counts) and not (np.asarray(counts) > 0).all()):
        raise ValueError(f"counts must be {n} positive numbers, one per sample; got shape {counts.shape}, minimum {counts.min()}")
    return counts


def _sharded(data: ArrayLike | Sharded, labels: ArrayLike | None, counts: ArrayLike | None, mesh: Any) -> Sharded:
    """The samples over the devices of a mesh, whoever dealt them."""
    if isinstance(data, Sharded):
        again = [name for name, v in (("labels", labels), ("counts", counts), ("mesh", mesh)) if v is not None]
        if again:
            raise ValueError(f"data are sharded already, with labels, counts and mesh; got {again} again")
        return data
    check_mesh(mesh)
    if any(isinstance(v, jax.core.Tracer) for v in (data, labels, counts)):
        raise ValueError("an oracle over a mesh is built outside of jit: its data are dealt by the host")
    n = np.shape(data)[0] if np.ndim(data) else 0
    return shard_samples(data, mesh, labels=_labels(labels, n), counts=_counts(counts, n))


def _listed(classes: np.ndarray) -> str:
    return ", ".join(map(str, classes[:10])) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
