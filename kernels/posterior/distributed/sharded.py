"""The posterior over a mesh of devices: the samples distributed over one axis, the queries over the other.

    mesh = jax.make_mesh((jax.device_count(), 1), ("samples", "queries"))
    samples = shard_samples(data, mesh, labels=labels)

Row i belongs to shard i mod S. Each shard sorts its own rows by class, and keeps each row's index in the caller's order. One pass over the
data is then the one-device program on every device, which agrees with the others by collectives whose bytes do not depend on N (see
`kernels.posterior.distributed.collectives`). The same code runs on one device, on forced CPU devices, on several processes and on a pod.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial as bind
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Num

from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import NO_SAMPLE
from kernels.posterior.types import SHIFTED_FROM, Samples, statistics, unit_of

SAMPLES, QUERIES = "samples", "queries"
Output = TypeVar("Output")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sharded:
    """`N` samples over the `samples` axis of a mesh, replicated over `queries`. `shard_samples` makes it."""

    samples: Samples
    """Its arrays are global: one shard after the other, each of ceil(N / S) rows, the last of which may be padding that never counts."""
    n: int = dataclasses.field(metadata={"static": True})
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    """Of one sample, as the caller gave it; D is its size."""
    counted: bool = dataclasses.field(metadata={"static": True})
    """Whether the caller gave counts."""
    mesh: Mesh = dataclasses.field(metadata={"static": True})

    @property
    def d(self) -> int:
        return self.samples.d

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sharded":
        """Itself: nothing in it can change."""
        return self

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError(
            "samples over a mesh cannot be pickled: another process has other devices. Pickle the data, and shard them again there"
        )

    def place(self, rows: Array) -> Array:
        """Queries on every device of the mesh, as `spread` takes them; under tracing, or on several processes already, as they are.

        Processes bring the same ones: that they do is not checked, which would send each process's to all others.
        """
        if isinstance(rows, jax.core.Tracer) or not rows.is_fully_addressable or rows.sharding.device_set == set(self.mesh.devices.flat):
            return rows
        host, everywhere = np.asarray(rows), NamedSharding(self.mesh, P())
        return jax.make_array_from_callback(host.shape, everywhere, lambda where: host[where])

    def in_order(self, rows: Array) -> np.ndarray:
        """A field of `samples`, on the host and in the caller's order.

        Raises:
          NotImplementedError: the shards belong to several processes, none of which has it all.
        """
        assert self.samples.index is not None
        if not rows.is_fully_addressable:
            raise NotImplementedError("the data lie on the devices of several processes: read them in the processes that loaded them")
        return np.asarray(rows)[np.argsort(np.asarray(self.samples.index), kind="stable")[: self.n]]

    def has_class(self, label: Int[Array, " B"]) -> np.ndarray:
        """Whether each label is -1 or has samples, on any shard; `[B]` on the host."""
        known = jax.jit(jnp.isin, out_shardings=NamedSharding(self.mesh, P()))(self.place(label), self.samples.labels)
        return np.asarray(known) | (np.asarray(label) == -1)


def check_mesh(mesh: Any) -> None:
    """ValueError unless `mesh` has the two axes that are named here."""
    if not isinstance(mesh, Mesh) or not {SAMPLES, QUERIES} <= set(mesh.axis_names):
        got = mesh.axis_names if isinstance(mesh, Mesh) else repr(mesh)
        raise ValueError(f"mesh must be a jax.sharding.Mesh with the axes {SAMPLES!r} and {QUERIES!r} (one may have size 1), got {got}")


def rows_of_process(n: int, mesh: Mesh) -> np.ndarray:
    """Which of `n` rows this process's devices hold, ascending: what it must load."""
    check_mesh(mesh)
    count = _shard_count(n, mesh)
    return np.sort(np.concatenate([np.arange(shard, n, count) for shard in _own_shards(mesh)]))


# A little over sixty lines: half of them say what a caller must know to load his own shard.
def shard_samples(
    data: ArrayLike, mesh: Mesh, *, labels: ArrayLike | None = None, counts: ArrayLike | None = None, n: int | None = None
) -> Sharded:
    """Distribute samples over the devices of a mesh, and prepare them for posteriors.

    Args:
      data: `[N, *shape]`, float32, bfloat16 or uint8 (other dtypes become float32). Only the rows of this process's devices are read: a
        memory map stays on disk but for those. With `n`: those rows alone.
      mesh: with the axes "samples" and "queries".
      labels: one integer >= 0 per row of `data`, or None.
      counts: one positive number per row, or None.
      n: how many samples there are in all, where `data` holds only `rows_of_process(n, mesh)`, in that order.

    Raises:
      ValueError: a mesh without the axes, no samples, more shards than samples, shapes that do not fit, NaN in the data.
    """
    check_mesh(mesh)
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))  # callers need say nothing of shardings
    data = data if isinstance(data, np.ndarray) else np.asarray(data)
    if data.ndim < 1 or 0 in data.shape:
        raise ValueError(f"data must hold at least one sample of at least one number, got shape {data.shape}")
    if not (np.issubdtype(data.dtype, np.number) or data.dtype in (bool, jnp.bfloat16)) or np.issubdtype(data.dtype, np.complexfloating):
        raise ValueError(f"data must be real numbers, got dtype {data.dtype}")
    shape, data = data.shape[1:], data.reshape(len(data), -1)
    total = data.shape[0] if n is None else n
    count = _shard_count(total, mesh)
    mine = rows_of_process(total, mesh)
    if n is not None and len(mine) != data.shape[0]:
        raise ValueError(f"data must hold the {len(mine)} rows of rows_of_process({n}, mesh) on this process, got {data.shape[0]}")
    vectors = _vector(labels, data.shape[0], "labels"), _vector(counts, data.shape[0], "counts")
    size = -(-total // count)
    parts = {}
    for shard in _own_shards(mesh):
        rows = np.arange(shard, total, count)
        here = rows if n is None else np.searchsorted(mine, rows)
        parts[shard] = _part(data, rows, here, *vectors, size=size, pad=total % count > 0)

    def globally(name: str) -> Array | None:
        example = next(iter(parts.values())).get(name)
        if example is None:
            return None

        def own(where: Any) -> np.ndarray:
            return parts[(where[0].start or 0) // size][name]

        return jax.make_array_from_callback((count * size, *example.shape[1:]), NamedSharding(mesh, P(SAMPLES)), own)

    values, index, weights = globally("values"), globally("index"), globally("counts")
    assert values is not None
    split, whole = P(SAMPLES), P()
    unit = 1.0
    if values.dtype != jnp.uint8:
        unit = unit_of(float(jax.jit(_largest, out_shardings=NamedSharding(mesh, whole))(values)))
    if unit != 1:
        inverse = np.asarray(1 / unit, values.dtype)
        values = jax.jit(jnp.multiply, out_shardings=NamedSharding(mesh, split))(values, inverse)
    center, norms, largest, ratio = jax.jit(
        jax.shard_map(
            bind(statistics, shards=Shards(SAMPLES)), mesh=mesh, in_specs=split, out_specs=(whole, split, whole, whole), check_vma=False
        )
    )(values, weights)
    if not np.isfinite(largest):
        raise ValueError("data has NaN or infinity")
    samples = Samples(
        values=values,
        center=center,
        square_norms=norms,
        log_prior=None if weights is None else jnp.log(weights),
        labels=globally("labels"),
        largest=largest,
        shifted=bool(ratio > SHIFTED_FROM),
        index=index,
        by_class=labels is not None,
        unit=None if unit == 1 else jax.device_put(jnp.asarray(unit, jnp.float32), NamedSharding(mesh, whole)),
    )
    return Sharded(samples, total, shape, counts is not None, mesh)


def _largest(values: Num[Array, "N D"]) -> Float[Array, ""]:
    """The largest of all |numbers|, float32."""
    return jnp.maximum(values.max(), -values.min()).astype(jnp.float32)


def abstract_samples(
    n: int, shape: tuple[int, ...], dtype: DTypeLike, mesh: Mesh, *, labels: bool = False, counts: bool = False, shifted: bool = False
) -> Sharded:
    """The shapes and shardings of what `shard_samples` returns, without data: to compile for a mesh that is not available here."""
    check_mesh(mesh)
    rows = mesh.shape[SAMPLES] * -(-n // _shard_count(n, mesh))

    def array(dims: tuple[int, ...], of: DTypeLike, spec: P) -> Any:
        return jax.ShapeDtypeStruct(dims, of, sharding=NamedSharding(mesh, spec))

    samples = Samples(
        values=array((rows, math.prod(shape)), dtype, P(SAMPLES)),
        center=array((math.prod(shape),), jnp.float32, P()),
        square_norms=array((rows,), jnp.float32, P(SAMPLES)),
        log_prior=array((rows,), jnp.float32, P(SAMPLES)) if counts or rows > n else None,
        labels=array((rows,), jnp.int32, P(SAMPLES)) if labels else None,
        largest=array((), jnp.float32, P()),
        shifted=shifted,
        index=array((rows,), jnp.int32, P(SAMPLES)),
        by_class=labels,
    )
    return Sharded(samples, n, shape, counts, mesh)


def spread(f: Callable[..., Output], rows: tuple[Any, ...], samples: Samples | Sharded, how: Any) -> Output:
    """`f(*rows, samples, how)` with samples and rows split over the mesh of `samples`; just that if they are on one device.

    Args:
      f: `posterior64` or another function of the same kind: rows in, rows out, told by `how.shards` to meet other devices.
      rows: `Queries` and other trees of arrays `[B, ...]`.
      how: a `PosteriorSettings`.
    """
    if isinstance(samples, Samples):
        return f(*rows, samples, how)
    b, tiles = jax.tree.leaves(rows)[0].shape[0], samples.mesh.shape[QUERIES]
    short = -b % tiles

    def pad(v: Array) -> Array:
        return jnp.pad(v, ((0, short),) + ((0, 0),) * (v.ndim - 1), mode="edge")

    padded = jax.tree.map(pad, rows) if short else rows
    everywhere = ("center", "largest", "unit")
    specs: dict[str, Any] = {field.name: P() if field.name in everywhere else P(SAMPLES) for field in dataclasses.fields(Samples)}
    static = {"shifted": samples.samples.shifted, "by_class": samples.samples.by_class}
    out = jax.shard_map(
        lambda some, part: f(*some, part, dataclasses.replace(how, shards=Shards(SAMPLES))),
        mesh=samples.mesh,
        in_specs=(P(QUERIES), Samples(**specs | static)),
        out_specs=P(QUERIES),
        check_vma=False,  # loops that start from constants would have to say over which axes these will vary
    )(padded, samples.samples)
    return jax.tree.map(lambda v: v[:b], out) if short else out


def _part(
    data: np.ndarray, rows: np.ndarray, here: np.ndarray, labels: np.ndarray | None, counts: np.ndarray | None, *, size: int, pad: bool
) -> dict[str, np.ndarray]:
    """One shard's arrays: the caller's `rows`, found in `data` at `here`, sorted by class, and padded to `size` rows that never count."""
    if labels is not None:
        order = np.argsort(labels[here], kind="stable")
        rows, here = rows[order], here[order]
    values = data[here]
    if values.dtype not in (np.float32, jnp.bfloat16, np.uint8):
        values = values.astype(np.float32)

    def padded(v: np.ndarray, fill: int) -> np.ndarray:
        return np.concatenate([v, np.full((size - len(rows), *v.shape[1:]), fill, v.dtype)]) if len(rows) < size else v

    part = {"values": padded(values, 0), "index": padded(rows.astype(np.int32), NO_SAMPLE)}
    if labels is not None:
        part["labels"] = padded(labels[here].astype(np.int32), NO_SAMPLE)
    if counts is not None or pad:
        part["counts"] = padded(np.ones(len(rows), np.float32) if counts is None else counts[here].astype(np.float32), 0)
    return part


def _shard_count(n: int, mesh: Mesh) -> int:
    count = mesh.shape[SAMPLES]
    if n < count:
        raise ValueError(f"{n} samples do not fit {count} shards: the mesh's {SAMPLES!r} axis must not be longer than the data")
    return count


def _own_shards(mesh: Mesh) -> list[int]:
    """The shards that devices of this process hold."""
    by_shard = np.moveaxis(mesh.devices, mesh.axis_names.index(SAMPLES), 0)
    return [i for i, devices in enumerate(by_shard) if any(device.process_index == jax.process_index() for device in devices.flat)]


def _vector(v: ArrayLike | None, length: int, name: str) -> np.ndarray | None:
    if v is None:
        return None
    v = np.asarray(v)
    if v.shape != (length,):
        raise ValueError(f"{name} must be {length} numbers, one per row of data; got shape {v.shape}")
    return v
