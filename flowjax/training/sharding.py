"""Sharding of batches and parameters over a mesh with the axes `batch` and `fsdp`.

Every device takes its share of the examples. Along `fsdp` each also keeps only its share of every parameter, gathers a layer's when the
layer's turn comes, and gets its share of the summed gradients back: the transpose of gathering is reducing and scattering.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kernels.posterior.distributed.sharded import QUERIES, SAMPLES

AXES = ("batch", "fsdp")


def make_mesh(batch: int = 0, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of batch x fsdp devices; `batch=0` takes all there are.

    Args:
      devices: those there are; None: this program's.

    Raises:
      ValueError: more devices than there are, or a number of them that fsdp does not divide; with several processes, not all of them.
    """
    whole = devices is None and jax.process_count() > 1
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or batch < 0 or (not batch and len(devices) % fsdp) or batch * fsdp > len(devices):
        raise ValueError(f"mesh.batch = {batch}, mesh.fsdp = {fsdp}: expected a product within the {len(devices)} devices there are")
    batch = batch or len(devices) // fsdp
    if whole and batch * fsdp < len(devices):
        raise ValueError(
            f"mesh.batch = {batch}, mesh.fsdp = {fsdp}: a mesh of {batch * fsdp} devices, but the job has {len(devices)}, and every "
            "process must have its part in it"
        )
    # An axis of the slice is split where it must be: fsdp = 8 on 4 x 4 chips.
    grid = mesh_utils.create_device_mesh((batch, fsdp), list(devices[: batch * fsdp]), allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def oracle_mesh(mesh: Mesh) -> Mesh:
    """The same devices, in the same order, for an `Oracle` among a step's constants: the samples distributed over all of them."""
    return Mesh(mesh.devices.reshape(-1, 1), (SAMPLES, QUERIES))


def own_mesh(mesh: Mesh) -> Mesh:
    """Those of the devices that belong to this process, for what it trains by itself."""
    return make_mesh(devices=mesh.local_devices)


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Arrays, the same in every process, on every device."""
    return jax.device_put(jax.tree.map(np.asarray, tree), NamedSharding(mesh, PartitionSpec()))


def sharded_axes(parameters: Any, size: int, stacked: str | None) -> Any:
    """For each parameter the axis along which it is sharded over `size` devices; -1: each keeps the whole.

    It is the longest axis that size divides; never the axis of layers, of which one is gathered at a time. Vectors (biases, norms) stay
    whole: they are a thousandth of a model, and gathering each would take as long as gathering a matrix.
    """

    def axis(path: tuple[Any, ...], leaf: Any) -> int:
        first = 1 if _within(path, stacked) else 0
        if len(leaf.shape) - first < 2:
            return -1
        fitting = [a for a in range(first, len(leaf.shape)) if leaf.shape[a] % size == 0]
        return max(fitting, key=lambda a: leaf.shape[a], default=-1) if size > 1 else -1

    return jax.tree_util.tree_map_with_path(axis, parameters)


def specs(parameters: Any, axes: Any) -> Any:
    """`PartitionSpec` of each parameter."""

    def spec(leaf: Any, axis: int) -> PartitionSpec:
        return PartitionSpec(*("fsdp" if a == axis else None for a in range(len(leaf.shape)))) if axis >= 0 else PartitionSpec()

    return jax.tree.map(spec, parameters, axes)


def gathered(parameters: Any, axes: Any) -> Any:
    """Inside a `shard_map`: whole parameters, of this device's and the other devices' shares."""
    return jax.tree.map(lambda p, a: p if a < 0 else jax.lax.all_gather(p, "fsdp", axis=a, tiled=True), parameters, axes)


def summed(gradients: Any, axes: Any) -> Any:
    """Inside a `shard_map`: gradients summed over all devices. Those of gathered parameters are over `fsdp` already."""
    return jax.tree.map(lambda g, a: jax.lax.psum(g, AXES if a < 0 else "batch"), gradients, axes)


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch, on its devices."""
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def _within(path: tuple[Any, ...], stacked: str | None) -> bool:
    return stacked is not None and bool(path) and getattr(path[0], "key", getattr(path[0], "name", None)) == stacked
