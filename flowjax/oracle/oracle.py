"""`Oracle`: the marginal velocity of flow matching on a finite data set, in closed form, and moments of its posterior."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh as DeviceMesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.oracle.along_path import PathOutput, no_paths
from flowjax.oracle.arguments import counts_given, finite, labels_given, sharded_given, source_given
from flowjax.oracle.backends import Backend, InMemory, Mesh, Rows, addressable, all_seen, with_settings
from flowjax.oracle.backends_disk import Disk
from flowjax.oracle.compiled import OracleOutput, Spec, empty_output
from flowjax.oracle.deduplicate import distinct
from flowjax.path import Path, RectifiedFlow
from kernels.posterior.api import Which, all_moments, as_samples, plan
from kernels.posterior.cpu.dispatch import Calibration, CpuEngine
from kernels.posterior.distributed.sharded import Sharded
from kernels.posterior.out_of_core.source import prepare_chunks
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.settings import BlockSizes, PosteriorSettings
from kernels.posterior.types import by_class, prepare
from kernels.precision import Precision

__all__ = ["Oracle", "OracleOutput"]


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

    Data may be of any size from 1e-18 to 1e18: they are kept in a unit of about their own size (not under tracing). Results are float32: of
    data of 1e18, squares such as `variance` and `cfm_gap` may be infinite, and of data of 1e-18 results below 1.2e-38 are 0.

    At t = 1 it is the limit: the nearest sample (ties equal), velocity `path.velocity_scale_at_sample · x` at a sample, NaN elsewhere.

    Args:
      data: `[N, *shape]` samples; or the result of `shard_samples`, for samples that each process has loaded itself.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; static.
      precision: of the matmuls: "highest", "high" or "default"; see `kernels.posterior.Precision`.
      implementation, block_sizes: how the posterior is computed; None: the default of the device. On a CPU that is, call by call, a dense
        pass or "pruned", which skips the samples that provably do not matter; `plan` says which, and why.
      mesh: of devices, with the axes "samples" and "queries": the samples are distributed over the one, the queries over the other. Results
        are as on one device, but for float32 rounding. Not under tracing.
      tolerance: share of a query's posterior weight whose samples `denoised` may lack, where an implementation can pass over them
        ("pallas_tpu": whole blocks of the data; "pruned": samples one by one); `error_bound` says what that did. 0: no more than
        float32 rounding hides: 1e-7 of the weight, less where the query lies close to a sample.
      counts: `[N]` how often each sample counts (`unique` sets it), or None: once each. Weights are then those of all copies together.

    Raises:
      ValueError: NaN in the data, no samples, labels that do not fit, a mesh without the two axes or with more shards than samples.
      NotImplementedError: an implementation that this version does not have.

    Examples:
      >>> import numpy as np
      >>> corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], np.float32)
      >>> out = Oracle(corners)(np.array([[0.1, 0.2]], np.float32), 0.9)
      >>> int(out.top1_index[0]), round(float(out.top1_weight[0]), 3)
      (3, 1.0)
      >>> np.asarray(out.denoised).round(2).tolist()
      [[1.0, 1.0]]
    """

    def __init__(
        self,
        data: ArrayLike | Sharded,
        labels: ArrayLike | None = None,
        *,
        path: Path | None = None,
        mesh: DeviceMesh | None = None,
        precision: Precision = "highest",
        implementation: str | None = None,
        block_sizes: BlockSizes | TpuBlocks | None = None,
        tolerance: float = 0.0,
        counts: ArrayLike | None = None,
    ):
        how = plan("all", implementation, block_sizes, precision, tolerance=tolerance)
        if mesh is not None or isinstance(data, Sharded):
            if implementation == "pruned":
                raise NotImplementedError("implementation 'pruned' is for samples in the memory of one host; got a mesh")
            sharded = sharded_given(data, labels, counts, mesh)
            self._set(sharded.shape, path, how, Mesh(sharded))
            return
        values = as_samples(data, "data")
        n = values.shape[0]
        flat, classes, weights = values.reshape(n, -1), labels_given(labels, n), counts_given(counts, n)
        samples = prepare(flat, None, weights) if classes is None else by_class(flat, classes, weights)
        engine = CpuEngine(always=implementation == "pruned") if implementation in (None, "pruned") else None
        self._set(values.shape[1:], path, how, InMemory(samples, engine))

    def _set(self, shape: tuple[int, ...], path: Any, how: PosteriorSettings, backend: Backend) -> None:
        path = RectifiedFlow() if path is None else path
        if not isinstance(path, Path):
            raise ValueError(f"path must be a flowjax.path.Path, got {path!r}")
        self._spec, self._backend = Spec(path, shape, how), backend

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
        """The oracle of data that stay on disk: the outputs of `Oracle(data, labels)`, to float32 rounding.

            oracle = Oracle.from_source("latents/", budget=2 * 2**30)    # LightningDiT's shards, a .npy, a prepared TFDS data set, ...
            oracle = Oracle.from_source(np.load("latents.npy", mmap_mode="r"), labels)

        Making it reads the data once; a call reads them once for all its queries, in double-buffered chunks, and once more in float64 if
        float32 leaves some query unsettled (at t = 1: twice). Queries of some classes alone read the rows of these, where they are few.

        The host drives it: not under jit, vmap or grad, and without `jvp`, `unique` and `data`, all of which raise NotImplementedError.

        Args:
          source: a path, read by `flowjax.data.recognize`'s source for it (normalised as `flowjax.data.load` does); `Records`; or an
            array-like with shape `[N, *shape]`, dtype and slices, taken as it is: a memory map, an HDF5 data set. Maps are read through
            their files.
          labels: `[N]` integers >= 0, or None: those that come with a path or `Records`.
          path: the probability path.
          budget: bytes that the oracle and a call to it may hold beside x_t and the result. 20 a sample are for norms, labels and order.
          precision: as in `Oracle`.
          progress: wraps the chunks of the first reading (`tqdm.tqdm`, for one).

        Raises:
          ValueError: NaN in the data, labels that do not fit, a budget that is too small, a file cut short, nothing that can be read so.
          FileNotFoundError: nothing lies at the path.
        """
        rows, shape, classes = source_given(source, labels)
        oracle = object.__new__(cls)
        chunks = prepare_chunks(rows, classes, budget=budget, progress=progress)
        oracle._set(shape, path, plan("all", "streaming", None, precision), Disk(chunks))
        return oracle

    @property
    def data(self) -> Array:
        """The samples, `[N, *shape]`, as given. Over a mesh: gathered on one device, if this process has them all."""
        return self._backend.rows().reshape(self._backend.n, *self._spec.shape)

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """The class of each sample, or None."""
        return self._backend.labels

    @property
    def conditional(self) -> bool:
        """Whether a label can be given: the samples have classes."""
        return self._backend.conditional

    @property
    def counts(self) -> Float[Array, " N"] | None:
        """How often each sample counts; None: once each."""
        return self._backend.counts

    @property
    def mesh(self) -> DeviceMesh | None:
        """The devices that hold the samples; None: one."""
        return self._backend.mesh

    @property
    def path(self) -> Path:
        """The probability path."""
        return self._spec.path

    @property
    def implementation(self) -> str:
        """The name of the implementation that computes the posterior."""
        return "disk" if isinstance(self._backend, Disk) else self._spec.how.implementation

    @property
    def times_together(self) -> int:
        """How many times `along_path` is best asked about at once: 1 where each is an evaluation of its own."""
        return self._backend.times_together

    def __repr__(self) -> str:
        labels = "yes" if self.conditional else "no"
        return f"Oracle(n={self._backend.n}, shape={self._spec.shape}, path={self.path}, labels={labels})"

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None, *, moments: Which = "all") -> OracleOutput:
        """The velocity, and moments of the posterior, at `B` points.

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
        full = all_moments(moments)
        if not x.shape[0]:
            return empty_output(self._spec.shape, full=full)
        out = self._backend.evaluate(with_settings(self._spec, full=full), x, t, label)
        shape = (x.shape[0], *self._spec.shape)
        if out.velocity.shape == shape:
            return out
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
        return self._backend.jvp(self._spec, x, t, label, self._backend.place(v.reshape(x.shape))).reshape(shape)

    def along_path(
        self, x_0: ArrayLike, x_1: ArrayLike, t: ArrayLike | Sequence[float], label: ArrayLike | None = None, *, gap: bool = True
    ) -> PathOutput:
        """What the posterior says of whole paths: at x_t = α_t x_1 + σ_t x_0, for B pairs at T times.

            out = oracle.along_path(noise, images, np.linspace(0.01, 0.99, 50))     # out.top1_weight [50, B]

        With ρ = α/σ the log weight of a sample y is, but for a term that all samples share,

            -‖x_t - α y‖² / 2σ² = -½ρ² ‖y - x_1‖² + ρ x_0·(y - x_1) - ½‖x_0‖²

        Two numbers a pair of path and sample, whatever t and whatever the probability path: on a CPU two matrix products give all T times,
        in memory and from a source on disk alike. `gap` takes another product for each time at which many samples carry weight. On an
        accelerator or a mesh they do without `gap`; with it, under tracing, and over several processes each time is an evaluation of its
        own. The results are the same, but for float32's rounding of x_t there.

        Args:
          x_0: `[B, *shape]`, the noise. Read as float32, as x_1 is.
          x_1: `[B, *shape]`, where the paths end: samples of the oracle or others.
          t: scalar or `[T]`, in [0, 1], in any order.
          label: None, a scalar or `[B]`, as in `__call__`.
          gap: whether `cfm_gap` and `monte_carlo_gap` are wanted.

        Returns:
          `PathOutput`, each field `[T, B]`, exact as `__call__`'s.

        Raises:
          ValueError: as `__call__`, and an x_1 that is not of x_0's shape.

        Examples:
          >>> x_0, x_1 = np.random.default_rng(0).standard_normal((2, 5, 2)).astype(np.float32)
          >>> out = Oracle(x_1).along_path(x_0, x_1, [0.0, 0.5, 0.99])
          >>> [round(float(weight), 2) for weight in np.asarray(out.top1_weight).mean(1)]  # of 5 samples: all alike, then one
          [0.2, 0.37, 1.0]
        """
        times = np.atleast_1d(np.asarray(t, np.float32)) if all_seen(t) else jnp.atleast_1d(jnp.asarray(t, jnp.float32))
        if times.ndim != 1:
            raise ValueError(f"t must be a scalar or a vector, got shape {times.shape}")
        if np.shape(x_0) != np.shape(x_1):
            raise ValueError(f"x_0 and x_1 must have one shape, got {np.shape(x_0)} and {np.shape(x_1)}")
        if all_seen(times) and not (inside := (times >= 0) & (times <= 1)).all():
            raise ValueError(f"t must lie in [0, 1], got {float(times[inside.argmin()])!r}")
        noise, _, labels = self._arguments(x_0, 0.0, label)
        data, _, _ = self._arguments(x_1, 0.0, None)
        if not noise.shape[0] or not times.shape[0]:
            return no_paths(times.shape[0], noise.shape[0], gap=gap)
        flat = dataclasses.replace(self._spec, shape=(self._backend.d,))
        return self._backend.along_path(flat, noise, data, times, labels, gap=gap)

    def prepare(
        self,
        *,
        calibration: Calibration | None = None,
        cache: str | os.PathLike[str] | None = None,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Calibration | None:
        """Build now the index that calls would build once it pays for itself: on a CPU, late queries skip most samples by it.

            chosen = oracle.prepare(cache="latents.index.npz")      # seconds; read from the file the next time
            json.dump(chosen.as_dict(), file)                       # and Calibration.from_dict(...) as `calibration`, for equal bits

        Without `prepare` the index is made after as many queries as its making costs, so that a few calls never pay for it.

        Args:
          calibration: what an earlier `prepare` returned: which queries are pruned is then decided as there, and results are the same to
            the bit on as many cores. None: costs are measured now, by the clock.
          cache: a file for the index, about 1.4 bytes a number for images: read if it is of these samples, else written.
          progress: wraps the parts in which the index is made (`tqdm.tqdm`, for one).

        Returns:
          The calibration; None where there is no index: on a mesh, a disk or an accelerator, or with another implementation named.
        """
        return self._backend.prepare(self._spec, calibration, cache, progress)

    def plan(self, t: ArrayLike | Sequence[float]) -> str:
        """How queries at these times are computed, and why, in words and figures: a line for each t. Makes the index if it is needed.

        Args:
          t: scalar or `[T]`, in [0, 1].
        """
        times = np.atleast_1d(np.asarray(t, np.float32))
        return "\n".join(f"t = {time:.4g}: {self._backend.plan(self._spec, time)}" for time in times)

    def relative_cost(self, t: ArrayLike | Sequence[float]) -> Float[np.ndarray, " T"]:
        """The cost of a call at these times that `plan` expects, as a share of a pass over all samples; 1 where there is no choice.

        Args:
          t: scalar or `[T]`, in [0, 1].
        """
        choices = [self._backend.plan(self._spec, time) for time in np.atleast_1d(np.asarray(t, np.float32))]
        return np.array([1.0 if isinstance(choice, str) else choice.cost for choice in choices])

    def unique(self, *, by_class: bool = True) -> "Oracle":
        """The oracle of the same data with exact duplicates merged, and `counts` set; its weights are those of distinct samples.

        Order: first occurrence. The velocity is the same. Not under tracing.

        Args:
          by_class: equal samples of different classes stay apart; False merges them and drops the labels.
        """
        found = distinct(
            np.asarray(self._backend.rows()),
            np.asarray(self.labels) if by_class and self.labels is not None else None,
            None if self.counts is None else np.asarray(self.counts),
        )
        return Oracle(
            found.values.reshape(-1, *self._spec.shape),
            found.labels,
            path=self.path,
            mesh=self.mesh,
            precision=self._spec.how.precision,
            implementation=self._asked_for,
            block_sizes=self._spec.how.chosen_blocks,
            tolerance=self._spec.how.tolerance,
            counts=found.counts,
        )

    @property
    def _asked_for(self) -> str | None:
        """The implementation that the caller named; None: the default of the device."""
        engine = self._backend.engine if isinstance(self._backend, InMemory) else None
        return None if engine is not None and not engine.always else self.implementation

    def _arguments(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None) -> tuple[Rows, Rows, Rows]:
        """x `[B, D]`, t `[B]`, label `[B]`, validated where they are concrete; NumPy arrays where the host computes."""
        some: Any = np if self._backend.on_host and addressable(x_t, t, label) else jnp
        x = some.asarray(x_t, dtype=np.float32)
        if x.ndim == 0 or x.shape[1:] != self._spec.shape:
            raise ValueError(f"x_t must have shape {('B', *self._spec.shape)}, a batch of samples; got {x.shape}")
        b = x.shape[0]
        time: Any = some.asarray(t, dtype=np.float32)
        if time.shape not in ((), (b,)):
            raise ValueError(f"t must be a scalar or of shape ({b},), got shape {time.shape}")
        if all_seen(time) and not (inside := (np.asarray(time) >= 0) & (np.asarray(time) <= 1)).all():
            raise ValueError(f"t must lie in [0, 1], got {float(np.ravel(time)[inside.argmin()])!r}")
        if all_seen(x) and not (np.isfinite(x).all() if some is np else finite(x)):
            raise ValueError(f"x_t has NaN or infinity in row {int(np.isfinite(np.asarray(x).reshape(b, -1)).all(axis=1).argmin())}")
        flat = x.reshape(b, self._backend.d), some.broadcast_to(time, (b,)), self._query_labels(label, b, some)
        x, time, labels = (self._backend.place(v) for v in flat)
        return x, time, labels

    def _query_labels(self, label: ArrayLike | None, b: int, some: Any) -> Rows:
        if label is None:
            return np.full(b, -1, np.int32) if some is np else jnp.asarray(np.full(b, -1, np.int32))
        if not self.conditional:
            raise ValueError("label was given, but the oracle has no labels: build it as Oracle(data, labels)")
        found: Any = some.asarray(label)
        if not np.issubdtype(found.dtype, np.integer) or found.shape not in ((), (b,)):
            raise ValueError(f"label must be an integer or integers of shape ({b},), got {found.dtype} of shape {found.shape}")
        if b and all_seen(found) and (unknown := self._backend.unknown_label(np.atleast_1d(found))):
            raise ValueError(unknown)
        rows: Rows = some.broadcast_to(found.astype(np.int32), (b,))
        return rows

    def tree_flatten(self) -> tuple[tuple[Backend], Spec]:
        return (self._backend,), self._spec

    @classmethod
    def tree_unflatten(cls, spec: Spec, children: tuple[Backend]) -> "Oracle":
        oracle = object.__new__(cls)
        oracle._spec, (oracle._backend,) = spec, children
        return oracle
