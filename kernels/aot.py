"""Compile the fused posterior for a TPU slice, without a TPU: will my data set fit, and how long is a pass?

    python -m kernels.aot --topology=v5e:16x16 --n=1281167 --d=8192 --queries=1024 --precision=default --sharded
    python -m kernels.aot --topology=v5e:16x16 --n=1281167 --d=8192 --queries=256 --path --times=50 --sharded    # whole paths at once

The compiler is the real one (`pip install "jax[tpu]"`, on any x86 machine). The last line of output is one JSON object; see `Report`.
A pass takes at least `roofline.seconds`, and `cycles_per_step · steps / clock` if no copy ever stalls.
"""

import dataclasses
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from kernels.aot_paths import PathReport, compile_paths
from kernels.posterior.api import PosteriorSettings, partial_of
from kernels.posterior.api import run as posterior_program
from kernels.posterior.distributed.sharded import QUERIES, SAMPLES, abstract_samples
from kernels.posterior.pallas.tpu_blocks import LANES, Generation, default_blocks, parts_of
from kernels.posterior.settings import default_block_sizes
from kernels.posterior.types import CentredQueries, Queries, Samples
from kernels.precision import check_precision
from kernels.tpu_tools.compiler import devices_of, generation_of_topology, memory_of, without_tpu
from kernels.tpu_tools.hlo import collectives
from kernels.tpu_tools.schedule import DUMP_FLAGS, bytes_read, read_schedule

KERNEL = "posterior_pass"
DTYPES = ("float32", "bfloat16", "uint8")


@dataclasses.dataclass(frozen=True)
class Report:
    """Figures of a compiled pass, of one device (one core of v5p and v4 chips, whose device is two)."""

    topology: str
    useful_mxu: float
    """FLOPs of the two matmuls, each product counted once, over what the MXUs could do in bfloat16 in the cycles of the steady loop."""
    cycles_per_step: int
    fills: int
    spills: int
    vmem_bytes: int
    """VMEM of the kernel, spill slots included."""
    hbm_bytes_per_device: int
    """Arguments, results and temporaries."""
    data_reads: float
    """Bytes read from HBM in a pass over bytes of the (shard of the) data set."""
    collectives: list[dict[str, str | int]]
    """opcode, bytes of the result and how often it runs, of each."""
    roofline: dict[str, str | float]
    """bound: `compute` or `bandwidth`; seconds: of a pass, by published peak figures; and both of them by name."""
    compile_seconds: float
    blocks: dict[str, Any]
    busy: dict[str, float]


# A little over sixty lines: its arguments, what they mean, and one program for each case, in order.
def compile_pass(
    topology: str,
    *,
    n: int,
    d: int,
    queries: int,
    precision: str = "default",
    dtype: str = "bfloat16",
    sharded: bool = False,
    full: bool = True,
) -> Report:
    """Compile one pass over `[n, d]` data for all of `queries`; `sharded`: with the samples distributed over all devices of the topology.

    `LIBTPU_INIT_ARGS` must be set by `dump_to` before JAX loads libtpu, once in a process.

    Raises:
      ValueError: sizes that cannot be, an unknown topology.
      RuntimeError: no libtpu; a program that the compiler refuses, such as one that does not fit HBM.
    """
    for name, value in (("n", n), ("d", d), ("queries", queries)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    multiplied = check_precision(precision)
    generation = generation_of_topology(topology)
    devices = devices_of(topology)
    count = len(devices) if sharded else 1
    if n < count:
        raise ValueError(f"{n} samples do not fit {count} shards")
    rows = -(-n // count)
    parts = parts_of(jnp.dtype(dtype), False, multiplied)
    blocks = default_blocks(generation, queries, d, jnp.dtype(dtype), parts, full=full)
    rows_at_once = default_block_sizes("pallas_tpu")
    how = PosteriorSettings(full, rows_at_once, multiplied, "pallas_tpu", limit=False, fused=blocks, generation=generation)
    began = time.monotonic()
    lowered = _sharded(devices, n, d, queries, how, dtype) if sharded else _single(devices[0], n, d, queries, how, dtype)
    compiled = lowered.compile()
    seconds = time.monotonic() - began
    schedule = read_schedule(Path(os.environ["KERNELS_AOT_DUMP"]), KERNEL)
    tile, steps = min(blocks.queries, -(-queries // 32) * 32), -(-rows // blocks.samples)
    phases = 2 * -(-d // blocks.columns) if blocks.columns else 1
    tiles = -(-queries // tile)
    flops = 4 * tile * blocks.samples * d / phases
    hlo = _text(compiled, Path(os.environ["KERNELS_AOT_DUMP"]))
    item = jnp.dtype(dtype).itemsize
    padded = -(-d // LANES) * LANES
    reads = bytes_read(
        schedule.copies,
        block=blocks.samples * (blocks.columns or padded) * item,
        per_tile=4 * LANES * tile,
        steps=tiles * steps * phases,
        data=tiles * rows * padded * item * (2 if phases > 1 else 1),
    )
    return Report(
        topology=topology,
        useful_mxu=round(flops / schedule.cycles / generation.mxu_flops_per_cycle, 4),
        cycles_per_step=schedule.cycles,
        fills=schedule.fills,
        spills=schedule.spills,
        vmem_bytes=_vmem(hlo),
        hbm_bytes_per_device=memory_of(compiled).total,
        data_reads=round(reads / (rows * d * item), 4),
        collectives=[{"opcode": c.opcode, "bytes": c.bytes, "count": c.count} for c in collectives(hlo)],
        roofline=roofline(generation, 4.0 * queries * rows * d, reads),
        compile_seconds=round(seconds, 1),
        blocks=dataclasses.asdict(blocks),
        busy={name: round(share, 3) for name, share in schedule.busy.items()},
    )


def _text(compiled: jax.stages.Compiled, dump: Path) -> str:
    """The text of the compiled program; from the dump where jaxlib cannot read libtpu's own, as for programs with some copies of v6e."""
    try:
        return compiled.as_text() or ""
    except jax.errors.JaxRuntimeError:
        return max(dump.glob("*-TLP-hlo.txt"), key=lambda file: file.stat().st_size).read_text(encoding="utf-8")


def roofline(generation: Generation, flops: float, bytes_read: float) -> dict[str, str | float]:
    """The least time that a pass can take on one core, and what bounds it, by the published peaks in `tpu_blocks`."""
    compute, bandwidth = flops / generation.bf16_flops, bytes_read / generation.hbm_bytes
    bound = "compute" if compute >= bandwidth else "bandwidth"
    return {"bound": bound, "seconds": max(compute, bandwidth), "compute": compute, "bandwidth": bandwidth}


def _single(device: jax.Device, n: int, d: int, b: int, how: PosteriorSettings, dtype: str) -> jax.stages.Lowered:
    """The kernel alone, on one device."""
    where = SingleDeviceSharding(device)
    x = _shape((b, d), jnp.float32)
    row, label = _shape((b,), jnp.float32), _shape((b,), jnp.int32)
    queries = CentredQueries(x=x, alpha=row, sigma=row, label=label, velocity_center=row, direction=x, curvature=row, offset=row)
    samples = Samples(
        _shape((n, d), jnp.dtype(dtype)), _shape((d,), jnp.float32), _shape((n,), jnp.float32), None, None, _shape((), jnp.float32), False
    )
    return jax.jit(partial_of, static_argnames=("how", "dtype"), in_shardings=where, out_shardings=where).lower(
        queries, samples, how, jnp.float32
    )


def _sharded(devices: Sequence[jax.Device], n: int, d: int, b: int, how: PosteriorSettings, dtype: str) -> jax.stages.Lowered:
    """A whole pass on every device: queries, kernel, exact candidates, and the collectives that merge the shards."""
    mesh = Mesh(np.array(devices).reshape(-1, 1), (SAMPLES, QUERIES))
    everywhere = NamedSharding(mesh, P())
    x, alpha, sigma, label = (
        jax.ShapeDtypeStruct(shape, of, sharding=everywhere)
        for shape, of in (((b, d), jnp.float32), ((b,), jnp.float32), ((b,), jnp.float32), ((b,), jnp.int32))
    )
    return posterior_program.lower(Queries(x, alpha, sigma, label), abstract_samples(n, (d,), jnp.dtype(dtype), mesh), how)


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    """A shape that stands for an array: nothing is computed."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _vmem(hlo: str) -> int:
    """VMEM of the kernel, spill slots included, from its custom call; the VMEM it requested where the call has only that."""
    for which in ("used_", ""):
        call = re.search(rf'%{KERNEL}\S* = .*?"{which}scoped_memory_configs":\[\{{"memory_space":"1","offset":"\d+","size":"(\d+)"', hlo)
        if call:
            return int(call[1])
    return 0


def dump_to(folder: str) -> None:
    """Make libtpu, which must not be loaded yet, write its schedules to `folder` and not search for a TPU."""
    os.environ["KERNELS_AOT_DUMP"] = folder
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {DUMP_FLAGS.format(folder=folder)}".strip()
    without_tpu()


_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "generation and shape of the slice")
_N = flags.DEFINE_integer("n", 1281167, "samples")
_D = flags.DEFINE_integer("d", 4096, "numbers in a sample")
_QUERIES = flags.DEFINE_integer("queries", 1024, "queries in a pass")
_PRECISION = flags.DEFINE_string("precision", "default", "highest, high or default")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "of the data: float32, bfloat16 or uint8")
_PATH = flags.DEFINE_bool("path", False, "whole paths: --queries pairs of noise and data at --times times, by one pass (`PathReport`)")
_TIMES = flags.DEFINE_integer("times", 50, "with --path: how many times")
_SHARDED = flags.DEFINE_bool("sharded", False, "distribute the samples over all devices of the slice")


def main(argv: Sequence[str]) -> None:
    """Print the report; one line and status 2 for what a user can cause."""
    if len(argv) > 1:
        sys.exit(_refuse(f"unexpected argument {argv[1]!r}"))
    with tempfile.TemporaryDirectory(prefix="kernels_aot_") as folder:
        dump_to(folder)
        try:
            sizes: dict[str, Any] = {"n": _N.value, "d": _D.value}
            how: dict[str, Any] = {"precision": _PRECISION.value, "dtype": _DTYPE.value, "sharded": _SHARDED.value}
            report: Report | PathReport
            if _PATH.value:
                report = compile_paths(_TOPOLOGY.value, **sizes, paths=_QUERIES.value, times=_TIMES.value, **how)
            else:
                report = compile_pass(_TOPOLOGY.value, **sizes, queries=_QUERIES.value, **how)
        except (ValueError, RuntimeError) as error:
            sys.exit(_refuse(str(error).strip().splitlines()[0][:400]))
    print(json.dumps(dataclasses.asdict(report)))


def _refuse(message: str) -> int:
    print(f"kernels.aot: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(main)
