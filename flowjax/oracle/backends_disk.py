"""Samples that stay in their source, as a backend of the oracle."""

import functools
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from flowjax.oracle.along_path import PathOutput, PathQueries, by_sums
from flowjax.oracle.backends import TIMES_TOGETHER, Backend, all_seen, first_unknown
from flowjax.oracle.compiled import OracleOutput, Rows, Spec, coefficients, finished
from kernels.float64 import float64_scope
from kernels.posterior.cpu.cost_model import Choice
from kernels.posterior.out_of_core.engine import posterior_out_of_core
from kernels.posterior.out_of_core.paths import paths_out_of_core
from kernels.posterior.out_of_core.source import Chunks
from kernels.posterior.types import Queries


@jax.tree_util.register_pytree_node_class
class Disk(Backend):
    """Samples that stay on disk and are read in chunks: see `Oracle.from_source`."""

    mesh, counts = None, None

    def __init__(self, chunks: Chunks):
        self.chunks = chunks

    @property
    def n(self) -> int:
        """How many samples there are."""
        return self.chunks.n

    @property
    def d(self) -> int:
        """Numbers in each."""
        return self.chunks.d

    @property
    def conditional(self) -> bool:
        """Whether the samples have classes."""
        return self.chunks.labels is not None

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """The class of each sample, or None."""
        return None if self.chunks.labels is None else jnp.asarray(self.chunks.labels)

    @property
    def times_together(self) -> int:  # type: ignore[override]
        """As in memory."""
        return TIMES_TOGETHER if jax.default_backend() == "cpu" else 1

    def along_path(self, spec: Spec, x_0: Rows, x_1: Rows, t: Rows, label: Rows, *, gap: bool) -> PathOutput:
        """On a CPU one reading for all times; elsewhere one for each."""
        if jax.default_backend() != "cpu" or spec.how.precision != "highest":
            return super().along_path(spec, x_0, x_1, t, label, gap=gap)
        asked = PathQueries.of_rows(spec.path, x_0, x_1, t, label)
        members = {int(one): self.n if one < 0 else int(np.sum(self.chunks.labels == one)) for one in np.unique(asked.paths.label)}
        masses = np.log([members[int(one)] for one in asked.paths.label])
        unit = 1.0 if self.chunks.unit is None else float(self.chunks.unit)
        sums = paths_out_of_core(asked.paths, self.chunks, means=gap)
        return by_sums(sums, masses, unit, asked, lambda *rows: self.evaluate(spec, *rows), gap=gap)

    def rows(self) -> NoReturn:
        """Not available: NotImplementedError."""
        _refuse("leaves the data where they are (no data, no unique): read them, or merge duplicates, where they are stored")

    def unknown_label(self, label: Int[np.ndarray, " B"]) -> str | None:
        """As in `Backend`, with the classes that have samples."""
        return None if self.chunks.labels is None else first_unknown(label, self._classes)

    @functools.cached_property
    def _classes(self) -> Int[np.ndarray, " C"]:
        """The classes that have samples."""
        return np.unique(np.asarray(self.chunks.labels))

    def place(self, rows: Rows) -> Rows:
        """As they are; not under tracing."""
        if not all_seen(rows):
            _refuse("runs outside of jit, vmap and grad: the host reads the data")
        return rows

    def evaluate(self, spec: Spec, x: Rows, t: Rows, label: Rows) -> OracleOutput:
        """One reading of the data for all queries, and another for queries that float32 leaves unsettled."""
        of = coefficients(spec.path, np.asarray(t))
        with float64_scope():
            found = posterior_out_of_core(Queries(x, of.alpha, of.sigma, label, of.center), self.chunks, spec.how)
            return finished(spec.path, x.shape[1], x, t, found)

    def jvp(self, spec: Spec, x: Rows, t: Rows, label: Rows, v: Rows) -> NoReturn:
        """Not available: NotImplementedError."""
        _refuse("has no jvp")

    def plan(self, spec: Spec, t: np.float32) -> Choice | str:
        """No choice."""
        return "disk: all samples are read from where they lie, chunk by chunk"

    def tree_flatten(self) -> NoReturn:
        _refuse("is no argument of jit, vmap or grad: call it outside of them")

    @classmethod
    def tree_unflatten(cls, _: Any, children: tuple[Chunks]) -> "Disk":
        return cls(*children)


def _refuse(why: str) -> NoReturn:
    raise NotImplementedError(f"an oracle from a source {why}; Oracle(data) in memory can be used there")
