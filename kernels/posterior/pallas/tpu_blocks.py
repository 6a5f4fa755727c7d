"""Block sizes of the fused TPU kernel on each TPU generation, from a model of VMEM and of the roofline."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax.typing import DTypeLike

from kernels.precision import Precision

if TYPE_CHECKING:
    from kernels.posterior.pallas.tpu_layout import Layout

LANES = 128
MIB, GIB = 2**20, 2**30
MARGIN = 4 * MIB
"""VMEM reserved for spilled registers and the compiler's own scratch, which took at most 1.3 MiB at the sizes in docs/kernel.md."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """One TensorCore of a TPU generation, per core and second.

    Figures a chip are from https://cloud.google.com/tpu/docs/system-architecture-tpu-vm (v4, v5e, v5p, v6e and tpu7x pages); v4, v5p and
    tpu7x have two cores a chip. `clock` is what those figures and the MXU's size imply. `ici_bytes` is half of what the pages call the
    bidirectional bandwidth of the inter-chip interconnect, all links of a chip together; v4's page gives the all-reduce bandwidth of a pod
    of 4,096 chips instead, 1.1 PB/s, which on the other generations is that half times the chips.
    """

    name: str
    bf16_flops: float
    hbm_bytes: float
    mxu_flops_per_cycle: int
    vmem: int
    step_products: int
    """Multiply-adds of one grid step, at which filling and draining the MXU are a small share and a program still compiles in a minute."""
    width: int
    """Width of the MXU."""
    sums_in_mxu: bool
    """Whether products are added up in the MXU."""
    hbm: int
    """Bytes of memory."""
    ici_bytes: float
    """Bytes a second that it can send to other chips."""

    def score_tile(self, queries: int) -> tuple[int, int, int]:
        """Queries, samples and columns of a piece of the first matmul. Where the MXU adds up, a piece holds all of D and half of a
        tile's queries: one half is read out while the other is multiplied. Elsewhere short pieces spread the softmax better."""
        return (max(LANES, queries // 2), self.width, 2**20) if self.sums_in_mxu else (1024, self.width, 512)

    @property
    def clock(self) -> float:
        return self.bf16_flops / self.mxu_flops_per_cycle

    @property
    def ridge(self) -> int:
        """Queries at which a pass over bfloat16 data takes as long by the MXU as by bandwidth."""
        return round(self.bf16_flops * 2 / (4 * self.hbm_bytes))


GENERATIONS = {
    g.name: g
    for g in (
        Generation("v4", 275e12 / 2, 1228e9 / 2, 131072, 16 * MIB, 2**31, 128, False, 16 * GIB, 1.1e15 / 4096 / 2),
        Generation("v5e", 197e12, 819e9, 131072, 128 * MIB, 2**31, 128, False, 16 * GIB, 200e9),
        Generation("v5p", 459e12 / 2, 2765e9 / 2, 131072, 64 * MIB, 2**31, 128, False, 95 * GIB // 2, 600e9 / 2),
        Generation("v6e", 918e12, 1640e9, 524288, 128 * MIB, 5 * 2**30, 256, False, 32 * GIB, 400e9),
        Generation("tpu7x", 2307e12 / 2, 7380e9 / 2, 524288, 64 * MIB, 5 * 2**30, 256, True, 96 * GIB, 600e9 / 2),
    )
}
KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e", "TPU v6e": "v6e"}


@dataclasses.dataclass(frozen=True)
class TpuBlocks:
    """Block sizes of the fused kernel.

    queries: rows of a query tile, a multiple of 32. The data are read once per tile.
    samples: rows of a data block, a multiple of 128.
    columns: columns of a data block, a multiple of 128; 0: all of D, and the data are read once. Less: they are read twice.
    score_tile: queries, samples and columns of one piece of the first matmul; sum_tile: columns of one piece of the second.
    vmem_limit: bytes to ask of the compiler; 0: what the model says and a margin.
    """

    queries: int
    samples: int
    columns: int = 0
    score_tile: tuple[int, int, int] = (1024, 256, 512)
    sum_tile: int = 256
    vmem_limit: int = 0

    def __post_init__(self) -> None:
        for name, multiple in (("queries", 32), ("samples", LANES), ("columns", LANES), ("sum_tile", LANES)):
            value = getattr(self, name)
            least = 0 if name == "columns" else multiple
            if not isinstance(value, int) or isinstance(value, bool) or value % multiple or value < least:
                raise ValueError(f"TpuBlocks.{name} must be a positive multiple of {multiple}, got {value!r}")
        if any(v % LANES or v < LANES for v in self.score_tile):
            raise ValueError(f"TpuBlocks.score_tile must be three positive multiples of {LANES}, got {self.score_tile!r}")


def parts_of(dtype: DTypeLike, shifted: bool, precision: Precision) -> tuple[int, int]:
    """Numbers of bfloat16 parts in which queries and data are multiplied. 3 hold a float32; bfloat16 and uint8 data are one part."""
    parts = {"default": 1, "high": 2, "highest": 3}[precision]
    exact = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.uint8)) and not shifted
    return parts, 1 if exact else parts


def vmem_model(
    queries: int, samples: int, columns: int, chunks: int, itemsize: int, parts: tuple[int, int], sums: int, direct: bool
) -> dict[str, int]:
    """Bytes of VMEM, by use."""
    slots = 2 if chunks == 1 else 1
    return {
        "data block, twice": 2 * samples * columns * itemsize,
        "data blocks kept": 0 if direct and chunks > 1 else slots * 2 * parts[1] * samples * columns,
        "queries": 2 * parts[0] * queries * columns * chunks,
        "Σ w y": 4 * queries * columns * chunks,
        "scores": slots * 4 * (queries + 8) * samples,
        "weights": 2 * parts[0] * queries * samples,
        "candidates and sums": 4 * queries * LANES * (6 + sums),
        "per query, twice": 2 * 2 * 4 * queries * LANES,
        "per sample, twice": 2 * 4 * 4 * 8 * samples + 2 * 4 * 8 * columns,
    }


def vmem_of(at: "Layout", itemsize: int) -> dict[str, int]:
    """`vmem_model` of a layout."""
    return vmem_model(at.queries, at.samples, at.columns, at.chunks, itemsize, (at.query_parts, at.data_parts), at.sums, at.direct)


def check_fits(at: "Layout", itemsize: int, vmem: int) -> int:
    """Bytes of VMEM that a layout needs with `MARGIN`, or ValueError with the numbers."""
    uses = vmem_of(at, itemsize)
    need = sum(uses.values()) + MARGIN
    if need > vmem:
        largest = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sorted(uses.items(), key=lambda use: -use[1])[:4])
        raise ValueError(
            f"blocks of {at.queries} queries by {at.samples} samples by {at.columns} columns need {need / MIB:.1f} MiB of VMEM,"
            f" and there are {vmem / MIB:.0f} ({largest} MiB): take smaller ones"
        )
    return need


def generation_of(device_kind: str) -> Generation:
    """The generation of a `jax.Device.device_kind` or a topology's name; v5e for what is not a TPU (interpret mode)."""
    if device_kind.startswith("TPU7x") or device_kind.startswith("TPU v7"):
        return GENERATIONS["tpu7x"]
    return GENERATIONS[KINDS.get(device_kind, "v5e")]


def default_blocks(
    generation: Generation,
    b: int,
    d: int,
    dtype: DTypeLike,
    parts: tuple[int, int],
    *,
    shifted: bool = False,
    full: bool = True,
    by_class: bool = False,
) -> TpuBlocks:
    """The largest query tile that fits, because the data are read once for each tile; then data blocks that make a step long enough.

    Where data are sorted by class (`by_class`), a tile reads the blocks of its own classes, and a larger tile has more classes: its size is
    then the least at which a pass is not bound by bandwidth.

    If no tile of 64 queries fits, D is split: the data are then read twice, and VMEM holds the queries and their sums only.
    """
    padded = -(-d // LANES) * LANES
    itemsize = jnp.dtype(dtype).itemsize
    direct = jnp.dtype(dtype) == jnp.bfloat16 and not shifted
    most = min(-(-generation.ridge // LANES) * LANES if by_class else 1024, -(-b // 32) * 32)
    tiles = [most] + [q for q in (1024, 512, 256, 128, 64, 32) if q < most]

    def fits(queries: int, samples: int, columns: int) -> bool:
        uses = vmem_model(queries, samples, columns, -(-padded // columns), itemsize, parts, 4 if full else 1, direct)
        return sum(uses.values()) + MARGIN <= generation.vmem

    for queries in tiles:
        if queries < 64 and queries != most:
            break
        passes = max(parts) * (max(parts) + 1) // 2 if parts[1] > 1 else parts[0]
        long = generation.step_products // (2 * queries * padded * passes)
        width = generation.width
        for samples in range(max(width, min(1024, long // 256 * 256)), 0, -width):
            if fits(queries, samples, padded):
                return TpuBlocks(queries, samples, score_tile=generation.score_tile(queries))
    for queries in (q for q in tiles if q <= 256):
        for columns in (8192, 4096, 2048, 1024):
            if columns < padded and fits(queries, 512, columns):
                return TpuBlocks(queries, 512, columns, score_tile=generation.score_tile(queries))
    raise ValueError(f"D={d} is too long for {generation.vmem / MIB:.0f} MiB of VMEM: even 32 queries and their sums do not fit")
