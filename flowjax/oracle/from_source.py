"""The oracle of data larger than memory: what `Oracle.from_source` makes."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.data import Records, open_records
from flowjax.data.dataset import checked_labels
from flowjax.data.formats.file_rows import ArraySource, RecordSource
from flowjax.data.recognize import recognize
from flowjax.oracle import Oracle
from flowjax.oracle.compiled import OracleOutput, Spec, coefficients, empty_output, finished
from flowjax.path import Path, RectifiedFlow
from kernels.float64 import float64_scope
from kernels.posterior.api import Which, plan
from kernels.posterior.blocks import Precision
from kernels.posterior.out_of_core.engine import posterior_out_of_core
from kernels.posterior.out_of_core.source import Chunks, prepare_chunks


@jax.tree_util.register_pytree_node_class
class SourceOracle(Oracle):
    """The exact oracle of data that stay on disk: the `OracleOutput` of `Oracle(data, labels)`, to float32 rounding.

        oracle = Oracle.from_source("latents/", budget=2 * 2**30)    # LightningDiT's shards, a .npy, a prepared TFDS data set, ...
        oracle = Oracle.from_source(np.load("latents.npy", mmap_mode="r"), labels)

    Making it reads the data once; a call reads them once for all its queries, in double-buffered chunks, and once more in float64 if
    float32 leaves some query unsettled (at t = 1: twice). Queries of some classes alone read the rows of these, where they are few.

    The host drives it: not under jit, vmap or grad, and without `jvp`, `unique` and `data`, all of which raise NotImplementedError.

    Args:
      source: a path, read by `flowjax.data.recognize`'s source for it (normalised as `flowjax.data.load` does); `Records`; or an array-like
        with shape `[N, *shape]`, dtype and slices, taken as it is: a memory map, an HDF5 data set. Maps are read through their files.
      labels: `[N]` integers >= 0, or None: those that come with a path or `Records`.
      path: the probability path.
      budget: bytes that the oracle and a call to it may hold beside x_t and the result. 20 a sample are for norms, labels and order.
      precision: as in `Oracle`.
      progress: wraps the chunks of the first reading (`tqdm.tqdm`, for one).

    Raises:
      ValueError: NaN in the data, labels that do not fit, a budget that is too small, a file cut short, nothing that can be read so.
      FileNotFoundError: nothing lies at the path.
    """

    def __init__(
        self,
        source: Any,
        labels: ArrayLike | None = None,
        *,
        path: Path | None = None,
        budget: int = 2**30,
        precision: Precision = "highest",
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ):
        if isinstance(source, str | os.PathLike):
            source = open_records(recognize(source), path=source)
        if labels is None and isinstance(source, Records):
            labels = source.labels
        rows = RecordSource(source) if isinstance(source, Records) else ArraySource(source)
        shape = tuple(source.shape[0 if isinstance(source, Records) else 1 :])
        classes = checked_labels("source", None if labels is None else np.asarray(labels), rows.shape[0], None)
        path = RectifiedFlow() if path is None else path
        if not isinstance(path, Path):
            raise ValueError(f"path must be a flowjax.path.Path, got {path!r}")
        self._spec = Spec(path, shape, plan("all", "streaming", None, precision))
        self._planner = None
        self._samples = prepare_chunks(rows, classes, budget=budget, progress=progress)

    _samples: Chunks  # type: ignore[assignment]

    @property
    def _prepared(self) -> Any:
        return self._samples

    @property
    def data(self) -> NoReturn:
        """Not there: NotImplementedError."""
        _refuse("leaves the data where they are: read them from the source")

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """The class of each sample, or None."""
        return None if self._samples.labels is None else jnp.asarray(self._samples.labels)

    @property
    def counts(self) -> None:
        """None: each sample counts once."""
        return None

    @property
    def implementation(self) -> str:
        """What computes the posterior."""
        return "disk"

    @property
    def _why(self) -> str:
        return "all samples are read from where they lie, chunk by chunk"

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None, *, moments: Which = "all") -> OracleOutput:
        """As `Oracle.__call__`.

        Raises:
          NotImplementedError: under tracing.
          ValueError: as `Oracle.__call__`, and a file that was cut short meanwhile.
        """
        if any(isinstance(v, jax.core.Tracer) for v in (x_t, t, label)):
            _refuse("runs outside of jit, vmap and grad: the host reads the data")
        x, t, label = self._arguments(x_t, t, label)
        if not x.shape[0]:
            return empty_output(self._spec.shape, full=plan(moments, None, None, "highest").full)
        how = dataclasses.replace(self._spec.how, full=plan(moments, None, None, "highest").full)
        alpha, sigma, velocity_center = coefficients(self.path, np.asarray(t))
        with float64_scope():
            found = posterior_out_of_core((x, alpha, sigma, label, velocity_center), self._samples, how)
            out = finished(self.path, x.shape[1], x, t, found)
        velocity, denoised = (v.reshape(-1, *self._spec.shape) for v in (out.velocity, out.denoised))
        return dataclasses.replace(out, velocity=velocity, denoised=denoised)

    def jvp(self, x_t: ArrayLike, t: ArrayLike, v: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """Not there: NotImplementedError."""
        _refuse("has no jvp")

    def unique(self, *, by_class: bool = True) -> Oracle:
        """Not there: NotImplementedError."""
        _refuse("has no unique: merge duplicates where the data are written")

    def tree_flatten(self) -> NoReturn:
        _refuse("is no argument of jit, vmap or grad: call it outside of them")


def _refuse(why: str) -> NoReturn:
    raise NotImplementedError(f"an oracle from a source {why}; Oracle(data) in memory can be used there")
