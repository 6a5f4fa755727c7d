"""The oracle: the marginal velocity of flow matching on a finite data set, in closed form, and what the posterior says."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from flowjax.oracle.compiled import FORWARD, OracleOutput, Spec, coefficients, empty_output, finished, program_of
from flowjax.oracle.deduplicate import distinct
from flowjax.path import Path, RectifiedFlow
from kernels.float64 import float64_scope
from kernels.posterior.api import Which, as_samples, moments_of, plan, where_left
from kernels.posterior.blocks import BlockSizes, Precision
from kernels.posterior.cpu.dispatch import Choice, Planner
from kernels.posterior.cpu.results import Queries
from kernels.posterior.distributed.sharded import Sharded, check_mesh, shard_samples
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.samples import Samples, by_class, prepare

__all__ = ["Oracle", "OracleOutput"]

LEAST_TILE = 8
"""Queries that a dense pass takes together at least: fewer make poor matrix products."""


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
        pass or "pruned", which skips the samples that provably do not matter; `plan` says which, and why.
      mesh: of devices, with the axes "samples" and "queries": the samples are dealt over the one, the queries over the other. Results are
        as on one device, but for float32 rounding. Not under tracing.
      tolerance: share of a query's posterior weight whose samples `denoised` may lack, where an implementation can pass over them
        ("pallas_tpu": whole blocks of the data; "pruned": samples one by one); `error_bound` says what that did. 0: no more than
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
        self._planner = Planner(always=implementation == "pruned") if implementation in (None, "pruned") else None
        if mesh is not None or isinstance(data, Sharded):
            if implementation == "pruned":
                raise NotImplementedError("implementation 'pruned' is for samples in the memory of one host; got a mesh")
            self._samples = _sharded(data, labels, counts, mesh)
            self._spec = Spec(path, self._samples.shape, how)
            return
        values = as_samples(data, "data")
        n, shape = values.shape[0], values.shape[1:]
        self._spec = Spec(path, shape, how)
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
        """The oracle of data that stay on disk, read within `budget` bytes of memory: see `flowjax.oracle.from_source.SourceOracle`."""
        from flowjax.oracle.from_source import SourceOracle  # which is an Oracle: it imports this module

        return SourceOracle(source, labels, path=path, budget=budget, precision=precision, progress=progress)

    @property
    def data(self) -> Array:
        """The samples, `[N, *shape]`, as given. Over a mesh: gathered on one device, if this process has them all."""
        return self._prepared.restored(self._in_order("values")).reshape(self._samples.n, *self._spec.shape)

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
    def _why(self) -> str:
        """Why there is no choice of how queries are computed."""
        return "as asked for, or the default here"

    @property
    def _asked(self) -> str | None:
        """The implementation as it was asked for."""
        return None if self._planner is not None and not self._planner.always else self.implementation

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
        if not x.shape[0]:
            return empty_output(self._spec.shape, full=plan(moments, None, None, self._spec.how.precision).full)
        seen = all(_seen(v) for v in (x, t, label, *jax.tree.leaves(self._samples)))
        spec = self._spec_for(t, moments, seen)
        if seen and self._prepared.by_class and spec.how.implementation == "streaming":
            spec = _tiled_by_class(spec, np.asarray(label))
        out = self._pruned(spec, x, t, label) if seen else None
        if out is None:
            with _pointing_to_jvp():
                out = program_of(spec).evaluate(self._samples, x, t, label)
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
        if not x.shape[0]:
            return v
        v = self._placed(v.reshape(x.shape))
        return program_of(self._spec_for(t, "all", _seen(x))).jvp(self._samples, x, t, label, v).reshape(shape)

    def plan(self, t: ArrayLike | Sequence[float]) -> str:
        """How queries at these times are computed, and why, in words and figures: a line for each t. Makes the index if it is needed.

        Args:
          t: scalar or `[T]`, in [0, 1].
        """
        why = "samples over several devices" if self.mesh else self._why
        times = np.atleast_1d(np.asarray(t, np.float32))
        return "\n".join(f"t = {time:.4g}: {self._choice(time) or f'{self.implementation}: {why}'}" for time in times)

    def relative_cost(self, t: ArrayLike | Sequence[float]) -> Float[np.ndarray, " T"]:
        """What `plan` expects a call at these times to cost, as a share of a pass over all samples; 1 where there is no choice.

        Args:
          t: scalar or `[T]`, in [0, 1].
        """
        choices = [self._choice(time) for time in np.atleast_1d(np.asarray(t, np.float32))]
        return np.array([1.0 if choice is None else choice.cost for choice in choices])

    def _choice(self, t: np.float32) -> Choice | None:
        """How queries at t are computed, where that is a choice."""
        if self._planner is None or isinstance(self._samples, Sharded) or not self._planner.possible(self._samples, self._spec.how):
            return None
        alpha, sigma, _ = coefficients(self._spec.path, np.full(1, t, np.float32))
        return self._planner.choice(self._samples, float(alpha[0]), float(sigma[0]))

    def _pruned(self, spec: Spec, x: Array, t: Array, label: Array) -> OracleOutput | None:
        """The same, without going through all samples for the queries where that is cheaper; None where there are none."""
        if self._planner is None or isinstance(self._samples, Sharded) or not self._planner.possible(self._samples, spec.how):
            return None
        queries = Queries(np.asarray(x, np.float64), *coefficients(spec.path, np.asarray(t)), np.asarray(label))
        found = self._planner(self._samples, queries, tolerance=spec.how.tolerance)
        if found is None:
            return None
        with float64_scope():
            out = finished(spec.path, self._samples.d, x, t, moments_of(found, spec.how.full))
        return where_left(found, out, lambda rows: program_of(spec).evaluate(self._samples, x[rows], t[rows], label[rows]))

    def unique(self, *, by_class: bool = True) -> "Oracle":
        """The oracle of the same data with exact duplicates merged, and `counts` set; its weights are those of distinct samples.

        Order: first occurrence. The velocity is the same. Not under tracing.

        Args:
          by_class: equal samples of different classes stay apart; False merges them and drops the labels.
        """
        found = distinct(
            np.asarray(self.data).reshape(self._samples.n, -1),
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

    def _spec_for(self, t: Array, moments: Which, seen: bool) -> Spec:
        """The static half of one call: what is known of it before it is compiled. What the index leaves takes a dense pass."""
        full = plan(moments, None, None, self._spec.how.precision).full
        limit = not _seen(t) or bool((t == 1).any())
        name = "streaming" if seen and self.implementation == "pruned" else self.implementation
        return dataclasses.replace(self._spec, how=dataclasses.replace(self._spec.how, full=full, limit=limit, implementation=name))

    def _arguments(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None) -> tuple[Array, Array, Array]:
        """x `[B, D]`, t `[B]`, label `[B]`, with every value checked that can be seen."""
        x = jnp.asarray(x_t, jnp.float32)
        if x.ndim == 0 or x.shape[1:] != self._spec.shape:
            raise ValueError(f"x_t must have shape {('B', *self._spec.shape)}, a batch of samples; got {x.shape}")
        b = x.shape[0]
        t = jnp.asarray(t, jnp.float32)
        if t.shape not in ((), (b,)):
            raise ValueError(f"t must be a scalar or of shape ({b},), got shape {t.shape}")
        if _seen(t) and not (inside := (np.asarray(t) >= 0) & (np.asarray(t) <= 1)).all():
            raise ValueError(f"t must lie in [0, 1], got {float(np.ravel(t)[inside.argmin()])!r}")
        if _seen(x) and not _finite(x):
            raise ValueError(f"x_t has NaN or infinity in row {int(jnp.argmin(jnp.isfinite(x.reshape(b, -1)).all(axis=1)))}")
        flat = x.reshape(b, self._samples.d), jnp.broadcast_to(t, (b,)), self._query_labels(label, b)
        x, t, label = (self._placed(v) for v in flat)
        return x, t, label

    def _placed(self, rows: Array) -> Array:
        return self._samples.place(rows) if isinstance(self._samples, Sharded) else rows

    def _query_labels(self, label: ArrayLike | None, b: int) -> Int[Array, " B"]:
        if label is None:
            return jnp.asarray(np.full(b, -1, np.int32))
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

    def tree_flatten(self) -> tuple[tuple[Samples | Sharded], tuple[Spec, Planner | None]]:
        return (self._samples,), (self._spec, self._planner and self._planner.fresh())

    @classmethod
    def tree_unflatten(cls, static: tuple[Spec, Planner | None], children: tuple[Samples | Sharded]) -> "Oracle":
        oracle = object.__new__(cls)
        (oracle._spec, planner), (oracle._samples,) = static, children
        oracle._planner = planner and planner.fresh()
        return oracle


@contextlib.contextmanager
def _pointing_to_jvp() -> Iterator[None]:
    """JAX refuses the forward mode of a function with a reverse rule of its own, and does not know of `Oracle.jvp`."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise NotImplementedError(FORWARD) from error


def _tiled_by_class(spec: Spec, label: np.ndarray) -> Spec:
    """Tiles of about one class each, so that the cost follows the classes' sizes; of few sizes, so that there are few programs."""
    classes = len(np.unique(label))
    tile = max(LEAST_TILE, 1 << (len(label) // max(classes, 1)).bit_length() - 1) if classes > 1 else len(label)
    blocks = spec.how.blocks
    if tile >= min(blocks.queries, len(label)):
        return spec
    return dataclasses.replace(spec, how=dataclasses.replace(spec.how, blocks=dataclasses.replace(blocks, queries=tile)))


def _seen(x: Array | np.ndarray) -> bool:
    return not isinstance(x, jax.core.Tracer)


@jax.jit
def _finite(x: Array) -> Bool[Array, ""]:
    return jnp.isfinite(x).all()


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
