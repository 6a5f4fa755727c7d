"""What `python -m kernels.aot --path` reports: the kernel for whole paths, compiled for a TPU slice without a TPU."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.pallas.tpu_blocks import Generation, parts_of
from kernels.posterior.pallas.tpu_layout import LANES, ROWS
from kernels.posterior.pallas.tpu_paths import NAME, path_layout, path_pass_tpu
from kernels.posterior.types import Samples
from kernels.posterior.xla.paths import PathFactors
from kernels.precision import Precision, check_precision
from kernels.tpu_tools.compiler import devices_of, generation_of_topology
from kernels.tpu_tools.schedule import bytes_read, read_schedule

COMPILED_ROWS = 2**15
"""Samples of the program that is compiled: its schedule does not depend on how many there are, and one chip need not hold them all."""


@dataclasses.dataclass(frozen=True)
class PathReport:
    """Figures of a pass of whole paths over one device's share of the samples, by the compiler's schedule."""

    topology: str
    bound: str
    """The unit that is busiest in the steady loop: MXU or VPU."""
    mxu: float
    """Share of its cycles in which the matrix unit works in the steady loop."""
    vpu: float
    """Share of the vector unit's slots that are filled there."""
    cycles_per_iteration: int
    """Of the steady loop: some columns of the product, and some times."""
    iterations: int
    """Of the steady loop in a step."""
    cycles_per_step: int
    steps: int
    """Blocks of samples, and one step more, for each tile of paths."""
    tiles: int
    fills: int
    spills: int
    """Registers in the steady loop."""
    vmem_bytes: int
    data_reads: float
    """Bytes read of the device's share of the samples over its size."""
    seconds: float
    """Of the pass, if no copy ever stalls."""
    passes_seconds: float
    """Of a pass by `posterior_pass` for each time, at the bfloat16 peak: what the paths cost one time after the other, at the least."""
    compile_seconds: float
    layout: dict[str, int | bool]


def compile_paths(
    topology: str, *, n: int, d: int, paths: int, times: int, precision: str = "default", dtype: str = "bfloat16", sharded: bool = False
) -> PathReport:
    """Compile a pass of `paths` at `times` over `[n, d]` data; `sharded`: over one device's share of them.

    Raises:
      ValueError: sizes that cannot be, an unknown topology.
      RuntimeError: no libtpu, or a program that the compiler refuses.
    """
    for name, value in (("n", n), ("d", d), ("queries", paths), ("times", times)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    multiplied, generation, devices = check_precision(precision), generation_of_topology(topology), devices_of(topology)
    rows = -(-n // len(devices)) if sharded else n
    shape: Any = jax.ShapeDtypeStruct  # shapes that stand for arrays: nothing is computed
    samples = Samples(
        shape((min(rows, COMPILED_ROWS), d), jnp.dtype(dtype)),
        shape((d,), jnp.float32),
        shape((min(rows, COMPILED_ROWS),), jnp.float32),
        None,
        None,
        shape((), jnp.float32),
        False,
    )
    layout = path_layout(samples, paths, d, times, parts_of(jnp.dtype(dtype), False, multiplied), generation)
    began = time.monotonic()
    _compile(devices[0], samples, paths, times, multiplied, generation)
    seconds = time.monotonic() - began
    schedule = read_schedule(Path(os.environ["KERNELS_AOT_DUMP"]), NAME)
    main = max(schedule.loops, key=lambda loop: loop.matmuls)
    others = sum(loop.cycles for loop in schedule.loops if loop is not main)
    cycles = schedule.cycles + main.cycles * (layout.chunks - 1) + others * (layout.paths // ROWS - 1)
    tiles, steps, item = -(-paths // layout.paths), -(-rows // layout.samples) + 1, jnp.dtype(dtype).itemsize
    reads = bytes_read(
        schedule.copies,
        block=layout.samples * layout.width * item,
        per_tile=4 * LANES * layout.paths,
        steps=tiles * steps,
        data=tiles * rows * layout.width * item,
    )
    mxu, vpu = main.busy["MATMUL"], main.busy["VALU"]
    return PathReport(
        topology=topology,
        bound="MXU" if mxu >= vpu else "VPU",
        mxu=round(mxu, 4),
        vpu=round(vpu, 4),
        cycles_per_iteration=main.cycles,
        iterations=layout.chunks,
        cycles_per_step=cycles,
        steps=steps,
        tiles=tiles,
        fills=main.fills,
        spills=main.spills,
        vmem_bytes=layout.vmem(item),
        data_reads=round(reads / (rows * d * item), 4),
        seconds=tiles * steps * cycles / generation.clock,
        passes_seconds=times * 4.0 * paths * rows * d * len(layout.products) / generation.bf16_flops,
        compile_seconds=round(seconds, 1),
        layout=dataclasses.asdict(layout),
    )


def _compile(device: jax.Device, samples: Samples, paths: int, times: int, precision: Precision, generation: Generation) -> None:
    def program(pairs: jax.Array, label: jax.Array, ratio: jax.Array, samples: Samples, near: jax.Array) -> tuple[jax.Array, ...]:
        with float64_scope():
            factors = PathFactors(to64(pairs), label, to64(ratio))
            found = path_pass_tpu(factors, samples, to64(near), precision=precision, generation=generation)
            return tuple(v if v.dtype == jnp.int32 else to32(v) for v in jax.tree.leaves(found))

    shape, where = jax.ShapeDtypeStruct, SingleDeviceSharding(device)
    asked = shape((2, paths, samples.d), jnp.float32), shape((paths,), jnp.int32), shape((times,), jnp.float32)
    jax.jit(program, in_shardings=where, out_shardings=where).lower(*asked, samples, shape((times, paths), jnp.float32)).compile()
