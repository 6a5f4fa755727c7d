"""Backends of `Oracle`: samples in memory, over a mesh, or on disk, and the computation with them there.

A backend computes outputs of flat queries `[B, D]`. `Oracle` validates a caller's arguments and shapes the results.
"""

import abc
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh as DeviceMesh
from jaxtyping import Array, Float, Int, Num

from flowjax.oracle.along_path import PathOutput, PathQueries, by_products, by_sums, by_times
from flowjax.oracle.compiled import FORWARD, OracleOutput, Rows, Spec, coefficients, output_of, program_of
from flowjax.runtime.files import write_whole
from kernels.posterior.cpu.cost_model import Choice
from kernels.posterior.cpu.dispatch import Calibration, CpuEngine, by_host
from kernels.posterior.cpu.index import Progress
from kernels.posterior.cpu.index_file import load_index, save_index
from kernels.posterior.distributed.sharded import Sharded
from kernels.posterior.types import Queries, Samples

LEAST_TILE = 8
"""Least number of queries in a tile of a dense pass: fewer make slow matrix products."""


TIMES_TOGETHER = 16
"""Times that share the two products of a path."""


class Backend(abc.ABC):
    """Samples, and the operations of `Oracle` on them. `spec.how.full` says whether all moments are computed."""

    on_host = False
    """Whether concrete queries are to be NumPy arrays."""
    times_together = 1
    """Number of times that one call of `along_path` computes at the least cost for each."""

    @property
    @abc.abstractmethod
    def n(self) -> int:
        """How many samples there are."""

    @property
    @abc.abstractmethod
    def d(self) -> int:
        """Numbers in each."""

    @property
    @abc.abstractmethod
    def labels(self) -> Int[Array, " N"] | None:
        """The class of each sample in the caller's order, or None."""

    @property
    @abc.abstractmethod
    def conditional(self) -> bool:
        """Whether the samples have classes."""

    @property
    @abc.abstractmethod
    def counts(self) -> Float[Array, " N"] | None:
        """How often each sample counts, in the caller's order; None: once each."""

    @property
    @abc.abstractmethod
    def mesh(self) -> DeviceMesh | None:
        """The devices that share the samples; None: one."""

    @abc.abstractmethod
    def rows(self) -> Num[Array, "N D"]:
        """The samples in the caller's order, as given."""

    @abc.abstractmethod
    def unknown_label(self, label: Int[np.ndarray, " B"]) -> str | None:
        """A sentence about the first label (not -1) without samples; None if all have samples, or if labels are traced."""

    @abc.abstractmethod
    def place(self, rows: Rows) -> Rows:
        """Queries on the devices that the backend computes on."""

    @abc.abstractmethod
    def evaluate(self, spec: Spec, x: Rows, t: Rows, label: Rows) -> OracleOutput:
        """The oracle's output; velocity and denoised flat or in the samples' shape."""

    @abc.abstractmethod
    def jvp(self, spec: Spec, x: Rows, t: Rows, label: Rows, v: Rows) -> Float[Array, "B D"]:
        """The velocity's Jacobian times v."""

    def along_path(self, spec: Spec, x_0: Rows, x_1: Rows, t: Rows, label: Rows, *, gap: bool) -> PathOutput:
        """The posterior of whole paths; one evaluation for each time unless there is a way to have them all at once."""
        return by_times(lambda x, time: self.evaluate(spec, self.place(x), self.place(time), label), spec.path, x_0, x_1, t, gap=gap)

    def _compiled_paths(
        self, spec: Spec, samples: Samples | Sharded, x_0: Rows, x_1: Rows, t: Rows, label: Rows, *, gap: bool
    ) -> PathOutput:
        """By two products, or, where a gap is wanted, values are traced or precision is not the highest, by evaluations."""
        if gap or spec.how.precision != "highest" or not all_seen(x_0, x_1, t, label, *jax.tree.leaves(samples)):
            return Backend.along_path(self, spec, x_0, x_1, t, label, gap=gap)
        asked = PathQueries.of_rows(spec.path, x_0, x_1, t, label)
        try:
            return by_products(samples, spec.how, asked, lambda *rows: self.evaluate(spec, *(self.place(v) for v in rows)))
        except NotImplementedError:  # samples so long that VMEM does not hold them beside the sums
            return Backend.along_path(self, spec, x_0, x_1, t, label, gap=gap)

    @abc.abstractmethod
    def plan(self, spec: Spec, t: np.float32) -> Choice | str:
        """How queries at t are computed, or why there is no choice."""

    def prepare(
        self, spec: Spec, calibration: Calibration | None, cache: str | os.PathLike[str] | None, progress: Progress
    ) -> Calibration | None:
        """Build and calibrate ahead of calls; None: this backend has nothing to build."""
        return None


@jax.tree_util.register_pytree_node_class
class InMemory(Backend):
    """Samples in the memory of one device.

    Args:
      samples: prepared.
      engine: the CPU engine; None: a compiled program computes everything.
    """

    mesh = None

    def __init__(self, samples: Samples, engine: CpuEngine | None):
        self.samples, self.engine = samples, engine

    @property
    def on_host(self) -> bool:  # type: ignore[override]
        """Whether the CPU engine computes."""
        return self.engine is not None and jax.default_backend() == "cpu" and all_seen(*jax.tree.leaves(self.samples))

    @property
    def unit(self) -> float:
        """The power of two that the samples are kept in."""
        return 1.0 if self.samples.unit is None else float(self.samples.unit)

    @property
    def times_together(self) -> int:  # type: ignore[override]
        """Many where all share two products; not all, so that a long sweep can be cut off."""
        return TIMES_TOGETHER if self.on_host else 1

    @property
    def n(self) -> int:
        """How many samples there are."""
        return self.samples.n

    @property
    def d(self) -> int:
        """Numbers in each."""
        return self.samples.d

    @property
    def conditional(self) -> bool:
        """Whether the samples have classes."""
        return self.samples.labels is not None

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """In the caller's order."""
        return None if self.samples.labels is None else self.samples.in_order(self.samples.labels)

    @property
    def counts(self) -> Float[Array, " N"] | None:
        """In the caller's order."""
        return None if self.samples.log_prior is None else jnp.exp(self.samples.in_order(self.samples.log_prior))

    def rows(self) -> Num[Array, "N D"]:
        """The samples, as given."""
        return self.samples.restored(self.samples.in_order(self.samples.values))

    def unknown_label(self, label: Int[np.ndarray, " B"]) -> str | None:
        """As in `Backend`, with the classes that have samples."""
        labels = self.samples.labels
        return None if labels is None or isinstance(labels, jax.core.Tracer) else first_unknown(label, self._classes)

    @functools.cached_property
    def _classes(self) -> Int[np.ndarray, " C"]:
        """The classes that have samples. To find them takes as long as a search of few queries."""
        return np.unique(np.asarray(self.samples.labels))

    def place(self, rows: Rows) -> Rows:
        """As they are."""
        return rows

    def along_path(self, spec: Spec, x_0: Rows, x_1: Rows, t: Rows, label: Rows, *, gap: bool) -> PathOutput:
        """By the CPU engine all times at once; what that leaves, and t = 1, one by one."""
        if self.engine is None or not self.engine.possible(spec.how) or not all_seen(x_0, x_1, t, label, *jax.tree.leaves(self.samples)):
            return self._compiled_paths(spec, self.samples, x_0, x_1, t, label, gap=gap)
        asked = PathQueries.of_rows(spec.path, x_0, x_1, t, label)
        sums = self.engine.along_paths(self.samples, asked.paths, means=gap)
        masses = self.engine.host_samples(self.samples).log_masses(asked.paths.label)
        return by_sums(sums, masses, self.unit, asked, lambda *rows: self.evaluate(spec, *rows), gap=gap)

    def evaluate(self, spec: Spec, x: Rows, t: Rows, label: Rows) -> OracleOutput:
        """By the CPU engine where all values are concrete; by a compiled program otherwise, and for queries left unanswered."""
        seen = all_seen(x, t, label, *jax.tree.leaves(self.samples))
        spec = spec_of_call(spec, t, host=seen)

        def compiled(rows: np.ndarray | slice) -> OracleOutput:
            own = spec
            if seen and self.samples.by_class and spec.how.implementation == "streaming":
                own = _tiled_by_class(spec, np.asarray(label[rows]))
            return evaluated(own, self.samples, *(jnp.asarray(v[rows]) for v in (x, t, label)))

        if seen and self.engine is not None and self.engine.possible(spec.how):
            of = coefficients(spec.path, np.asarray(t))
            queries = Queries(np.asarray(x), of.alpha, of.sigma, np.asarray(label), of.center, of.rate)
            finish = functools.partial(output_of, of=of, spec=spec, x=queries.x)
            out = by_host(self.engine, self.samples, queries, spec.how, finish, compiled)
            if out is not None:
                return out
        return compiled(slice(None))

    def jvp(self, spec: Spec, x: Rows, t: Rows, label: Rows, v: Rows) -> Array:
        """One more pass over the samples."""
        return program_of(spec_of_call(spec, t, host=all_seen(x))).jvp(self.samples, *(jnp.asarray(rows) for rows in (x, t, label, v)))

    def plan(self, spec: Spec, t: np.float32) -> Choice | str:
        """What the CPU engine would choose, or the implementation."""
        if self.engine is None or not self.engine.possible(spec.how):
            return f"{spec.how.implementation}: as asked for, or the default here"
        of = coefficients(spec.path, np.full(1, t, np.float32))
        return self.engine.choice(self.samples, float(of.alpha[0]), float(of.sigma[0]))

    def prepare(
        self, spec: Spec, calibration: Calibration | None, cache: str | os.PathLike[str] | None, progress: Progress
    ) -> Calibration | None:
        """The index of the CPU engine, where there is one for these settings."""
        if self.engine is None or not self.engine.possible(spec.how):
            return None
        path = None if cache is None else pathlib.Path(cache)
        index = None if path is None else load_index(self.engine.host_samples(self.samples), path)
        prepared = self.engine.prepare(self.samples, calibration=calibration, index=index, progress=progress)
        if path is not None and index is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda partial: save_index(prepared.index, partial))
        return prepared.calibration

    def tree_flatten(self) -> tuple[tuple[Samples], CpuEngine | None]:
        return (self.samples,), self.engine and self.engine.fresh()

    @classmethod
    def tree_unflatten(cls, engine: CpuEngine | None, children: tuple[Samples]) -> "InMemory":
        return cls(*children, engine and engine.fresh())


@jax.tree_util.register_pytree_node_class
class Mesh(Backend):
    """Samples over the devices of a mesh."""

    def __init__(self, sharded: Sharded):
        self.sharded = sharded

    @property
    def n(self) -> int:
        """How many samples there are."""
        return self.sharded.n

    @property
    def d(self) -> int:
        """Numbers in each."""
        return self.sharded.d

    @property
    def mesh(self) -> DeviceMesh:
        """The devices."""
        return self.sharded.mesh

    @property
    def conditional(self) -> bool:
        """Whether the samples have classes."""
        return self.sharded.samples.labels is not None

    @property
    def labels(self) -> Int[Array, " N"] | None:
        """In the caller's order, gathered."""
        labels = self.sharded.samples.labels
        return None if labels is None else jnp.asarray(self.sharded.in_order(labels))

    @property
    def counts(self) -> Float[Array, " N"] | None:
        """In the caller's order, gathered."""
        log_prior = self.sharded.samples.log_prior
        return None if log_prior is None or not self.sharded.counted else jnp.exp(jnp.asarray(self.sharded.in_order(log_prior)))

    def rows(self) -> Num[Array, "N D"]:
        """The samples, gathered on one device, if this process has them all."""
        return self.sharded.samples.restored(jnp.asarray(self.sharded.in_order(self.sharded.samples.values)))

    def unknown_label(self, label: Int[np.ndarray, " B"]) -> str | None:
        """As in `Backend`, over all shards."""
        if isinstance(self.sharded.samples.labels, jax.core.Tracer):
            return None
        each = np.atleast_1d(label)
        known = self.sharded.has_class(jnp.asarray(each, jnp.int32))
        return None if known.all() else f"label {each[known.argmin()]} has no samples"

    def place(self, rows: Rows) -> Rows:
        """On every device of the mesh."""
        return self.sharded.place(jnp.asarray(rows))

    def along_path(self, spec: Spec, x_0: Rows, x_1: Rows, t: Rows, label: Rows, *, gap: bool) -> PathOutput:
        """By two products; over devices of several processes by evaluations, for no process sees the results of all."""
        several = len({device.process_index for device in self.mesh.devices.flat}) > 1
        by = super().along_path if several else functools.partial(self._compiled_paths, samples=self.sharded)
        return by(spec, x_0=x_0, x_1=x_1, t=t, label=label, gap=gap)

    def evaluate(self, spec: Spec, x: Rows, t: Rows, label: Rows) -> OracleOutput:
        """One program on all devices."""
        return evaluated(spec_of_call(spec, t, host=False), self.sharded, x, t, label)

    def jvp(self, spec: Spec, x: Rows, t: Rows, label: Rows, v: Rows) -> Array:
        """One more pass over the samples."""
        return program_of(spec_of_call(spec, t, host=False)).jvp(self.sharded, x, t, label, v)

    def plan(self, spec: Spec, t: np.float32) -> Choice | str:
        """No choice."""
        return f"{spec.how.implementation}: samples over several devices"

    def tree_flatten(self) -> tuple[tuple[Sharded], None]:
        return (self.sharded,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Sharded]) -> "Mesh":
        return cls(*children)


def spec_of_call(spec: Spec, t: Rows, *, host: bool) -> Spec:
    """The static part of a call: whether some t may be 1, and the implementation of the compiled program.

    Args:
      host: the host sees all values, and drives pruned search itself.
    """
    name = "streaming" if host and spec.how.implementation == "pruned" else spec.how.implementation
    return with_settings(spec, limit=not all_seen(t) or bool((t == 1).any()), implementation=name)


@functools.lru_cache(maxsize=256)
def with_settings(spec: Spec, **changed: Any) -> Spec:
    """The same with other settings of a call. Kept, because every call of an oracle asks for the same few."""
    return dataclasses.replace(spec, how=dataclasses.replace(spec.how, **changed))


def evaluated(spec: Spec, samples: Samples | Sharded, x: Rows, t: Rows, label: Rows) -> OracleOutput:
    """Output of the compiled program. JAX refuses forward mode here; the error then names `Oracle.jvp`."""
    with _pointing_to_jvp():
        return program_of(spec).evaluate(samples, x, t, label)


def all_seen(*values: Any) -> bool:
    """Whether no value is a tracer."""
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def addressable(*values: Any) -> bool:
    """Whether this process sees all values."""
    return all(not isinstance(v, jax.core.Tracer) and (not isinstance(v, jax.Array) or v.is_fully_addressable) for v in values)


@contextlib.contextmanager
def _pointing_to_jvp() -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise NotImplementedError(FORWARD) from error


def _tiled_by_class(spec: Spec, label: np.ndarray) -> Spec:
    """Tiles of about one class each, so that the cost follows the classes' sizes; few tile sizes need few programs."""
    classes = len(np.unique(label))
    tile = max(LEAST_TILE, 1 << (len(label) // max(classes, 1)).bit_length() - 1) if classes > 1 else len(label)
    blocks = spec.how.blocks
    if tile >= min(blocks.queries, len(label)):
        return spec
    return dataclasses.replace(spec, how=dataclasses.replace(spec.how, blocks=dataclasses.replace(blocks, queries=tile)))


def first_unknown(label: np.ndarray, known: np.ndarray) -> str | None:
    """In words, the first label (not -1) that is none of the known classes, which rise; None if all are."""
    unknown = np.setdiff1d(label[label != -1], known)
    if not unknown.size:
        return None
    listed = ", ".join(map(str, known[:10])) + (f", ... ({len(known)} in all)" if len(known) > 10 else "")
    return f"label {unknown[0]} has no samples; classes with samples: {listed}"
