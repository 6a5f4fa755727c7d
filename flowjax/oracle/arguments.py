"""What an oracle is made of, validated: data over a mesh or in a source, labels, counts."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from flowjax.data import Records, open_records
from flowjax.data.dataset import checked_labels
from flowjax.data.formats.file_rows import ArraySource, RecordSource
from flowjax.data.recognize import recognize
from flowjax.oracle.backends import all_seen
from kernels.posterior.distributed.sharded import Sharded, check_mesh, shard_samples
from kernels.posterior.out_of_core.source import Source


@jax.jit
def finite(x: Array) -> Bool[Array, ""]:
    """Whether all numbers are."""
    return jnp.isfinite(x).all()


def labels_given(labels: ArrayLike | None, n: int) -> Int[Array, " N"] | None:
    """The labels of an oracle's samples, validated where they are seen."""
    if labels is None:
        return None
    labels = jnp.asarray(labels)
    if labels.shape != (n,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be {n} integers, one per sample; got {labels.dtype} of shape {labels.shape}")
    if all_seen(labels) and (np.asarray(labels) < 0).any():
        raise ValueError(f"labels must be >= 0 (-1 asks for all samples in a query), got {int(labels.min())}")
    return labels.astype(jnp.int32)


def counts_given(counts: ArrayLike | None, n: int) -> Float[Array, " N"] | None:
    """How often each sample counts, validated where it is seen."""
    if counts is None:
        return None
    counts = jnp.asarray(counts).astype(jnp.float32)
    if counts.shape != (n,) or (all_seen(counts) and not (np.asarray(counts) > 0).all()):
        raise ValueError(f"counts must be {n} positive numbers, one per sample; got shape {counts.shape}, minimum {counts.min()}")
    return counts


def sharded_given(data: ArrayLike | Sharded, labels: ArrayLike | None, counts: ArrayLike | None, mesh: Any) -> Sharded:
    """The samples over the devices of a mesh; those of `shard_samples` as they are."""
    if isinstance(data, Sharded):
        again = [name for name, v in (("labels", labels), ("counts", counts), ("mesh", mesh)) if v is not None]
        if again:
            raise ValueError(f"data are sharded already, with labels, counts and mesh; got {again} again")
        return data
    check_mesh(mesh)
    if any(isinstance(v, jax.core.Tracer) for v in (data, labels, counts)):
        raise ValueError("an oracle over a mesh is built outside of jit: the host distributes its data")
    n = np.shape(data)[0] if np.ndim(data) else 0
    return shard_samples(data, mesh, labels=labels_given(labels, n), counts=counts_given(counts, n))


class GivenSource(NamedTuple):
    """A data set that stays where it is."""

    rows: Source
    shape: tuple[int, ...]
    """Of a sample."""
    labels: Int[np.ndarray, " N"] | None


def source_given(source: Any, labels: ArrayLike | None) -> GivenSource:
    """A path, `Records` or an array-like, and its labels: those that are given, or those that come with it.

    Raises:
      ValueError: labels that do not fit, or nothing that can be read so.
      FileNotFoundError: nothing lies at the path.
    """
    if isinstance(source, str | os.PathLike):
        source = open_records(recognize(source), path=source)
    if labels is None and isinstance(source, Records):
        labels = source.labels
    rows = RecordSource(source) if isinstance(source, Records) else ArraySource(source)
    shape = tuple(source.shape[0 if isinstance(source, Records) else 1 :])
    return GivenSource(rows, shape, checked_labels("source", None if labels is None else np.asarray(labels), rows.shape[0], None))
