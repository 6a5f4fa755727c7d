"""The static schedule that the TPU compiler dumps for a Pallas kernel: cycles of a grid step, and the use of each unit.

The dump (`DUMP_FLAGS`) holds, for each kernel, the final bundles - one is one cycle - and a table of the units that each one
uses. The schedule is exact for compute. It is an upper bound on speed, because no DMA ever stalls in it.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

BUNDLES, UNITS = "-packed-bundles-post-ra.txt", "pre-delay_hlo-static-per-bundle-utilization.txt"
DUMP_FLAGS = (
    "--xla_jf_dump_to={folder} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=true"
    " --xla_jf_dump_llo_pass_label_regex=.*(packed-bundles-post-ra|pre-delay_hlo-static-per-bundle-utilization).*"
)
"""Of the seventy texts of each kernel, 700 MB in all, the two that are read."""
BOOKKEEPING = 64
"""Bundles of a conditional region up to which it belongs to the pipeline, as does one that copies from HBM: it starts or awaits copies, and
counts. A longer one without a matmul runs at the first step, at the last, or rarely, and does not count."""
GRANULE = 32
"""Bytes in a granule, the unit of a copy."""

_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?\s*:")
_BRANCH = re.compile(r"sbr\.rel\s*\([^)]*\)\s*target bundleno = (\d+)")
_COPY = re.compile(r"= dma\.hbm_to_vmem\b.*?size_in_granules=\*/(\d*)")


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop inside the steady loop, which every step goes through."""

    cycles: int
    """Bundles of one iteration."""
    matmuls: int
    """Instructions of the matrix unit in one iteration."""
    busy: dict[str, float]
    """As in `Schedule`."""
    fills: int
    spills: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The steady loop of a kernel: a grid step without the regions that only some steps enter."""

    cycles: int
    """Bundles of one step."""
    busy: dict[str, float]
    """Share of each unit's capacity that is used, by the compiler's names: MATMUL, VALU, VLOAD, ..."""
    fills: int
    """Registers reloaded in a step from where they were spilled."""
    spills: int
    copies: tuple[int | None, ...]
    """Bytes of each copy from HBM that the pipeline may start in a step, which it does when the block has changed. None: known at run time
    only, for a block that the end of the data may cut short."""
    kernel_cycles: int
    """Bundles of the whole program."""
    loops: tuple[Loop, ...] = ()
    """Loops inside the steady loop; `cycles` has one iteration of each."""


def bytes_read(copies: tuple[int | None, ...], *, block: int, per_tile: int, steps: int, data: int) -> int:
    """Bytes that a pass copies from HBM: the data, and the other copies of each step.

    Args:
      copies: of a step, see `Schedule`.
      block: bytes of a block of data. A copy that the end of the data may cut short is one: in all, `data` bytes.
      per_tile: bytes of a block that changes with the query tile only, and does not count.
    """
    known = [size for size in copies if size is not None and size != per_tile]
    if block == per_tile and per_tile in copies:
        known.append(block)
    return steps * sum(known) + (data if None in copies else 0)


def read_schedule(folder: Path, kernel: str) -> Schedule:
    """The schedule of the kernel of that name from a folder of dumps.

    Raises:
      ValueError: no such kernel, or files that are not as expected.
    """
    schedules = [p for p in sorted(folder.glob(f"*{kernel}*{BUNDLES}")) if "schedule-analysis" not in p.name]
    if not schedules:
        raise ValueError(f"no schedule of a kernel {kernel!r} in {folder}")
    prefix = schedules[0].name.removesuffix(BUNDLES).rsplit("-", 1)[0]
    tables = [p for p in folder.iterdir() if p.name.startswith(prefix + "-") and p.name.endswith(UNITS)]
    if len(tables) != 1:
        raise ValueError(f"expected one table of units for {prefix!r} in {folder}, found {len(tables)}")
    return parse_schedule(schedules[0].read_text(), tables[0].read_text())


def parse_schedule(bundles: str, units: str) -> Schedule:
    """As `read_schedule`, from the texts of the two files.

    Raises:
      ValueError: texts that do not belong together, or a program without a loop.
    """
    lines = _bundles(bundles)
    names, capacity, table = _units(units)
    if len(lines) != len(table):
        raise ValueError(f"the schedule has {len(lines)} bundles and the table of units {len(table)} rows")
    steady = _steady(lines)

    def use(rows: Sequence[int]) -> tuple[dict[str, int], dict[str, float]]:
        used = {name: sum(table[i][k] for i in rows) for k, name in enumerate(names)}
        return used, {name: used[name] / (capacity[k] * len(rows)) for k, name in enumerate(names)}

    def loop(start: int, end: int) -> Loop:
        rows = range(start, end + 1)
        used, busy = use(rows)
        matmuls = sum(lines[i].count(" vmatmul") for i in rows)
        return Loop(len(rows), matmuls, busy, used.get("VLOAD:FILL", 0), used.get("VSTORE:SPILL", 0))

    inside = set(steady)
    inner = [(a, b) for a, b in _loops(lines) if a in inside and b in inside and (a, b) != (steady[0], steady[-1])]
    used, busy = use(steady)
    copies = tuple(int(size) * GRANULE if size else None for i in steady for size in _COPY.findall(lines[i]))
    return Schedule(
        cycles=len(steady),
        busy=busy,
        fills=used.get("VLOAD:FILL", 0),
        spills=used.get("VSTORE:SPILL", 0),
        copies=copies,
        kernel_cycles=len(lines),
        loops=tuple(loop(a, b) for a, b in inner),
    )


def _bundles(text: str) -> list[str]:
    """The text of each bundle, by address."""
    out: list[str] = []
    for line in text.splitlines():
        start = _BUNDLE.match(line)
        if start:
            address = int(start[1], 16)
            if address != len(out):
                raise ValueError(f"bundle {address} follows bundle {len(out) - 1}")
            out.append(line)
        elif out:
            out[-1] += "\n" + line
    return out


def _units(text: str) -> tuple[list[str], list[int], list[list[int]]]:
    lines = [line for line in text.splitlines() if line.strip()]
    names = lines[1].replace(" ", "").split(",")
    return names, [int(v) for v in lines[2].split()], [[int(v) for v in line.split()] for line in lines[4:]]


def _branches(lines: list[str]) -> list[tuple[int, int]]:
    """From where to where."""
    return [(i, int(target)) for i, line in enumerate(lines) for target in _BRANCH.findall(line)]


def _loops(lines: list[str]) -> list[tuple[int, int]]:
    """First and last bundle of each."""
    return [(target, i) for i, target in _branches(lines) if target <= i]


def _steady(lines: list[str]) -> list[int]:
    """Addresses of the longest loop's bundles, less the conditional regions that the steady loop does not enter.

    Of alternative regions with matmuls it enters the one with the most: the others belong to the first step, the last, or to skipped
    blocks.
    """
    branches, loops = _branches(lines), _loops(lines)
    if not loops:
        raise ValueError("the program has no loop: its grid has one step")
    start, end = max(loops, key=lambda loop: loop[1] - loop[0])
    out = set(range(start, end + 1))
    matmuls = list(itertools.accumulate(line.count(" vmatmul") for line in lines))
    regions = [(i, target) for i, target in branches if start <= i < target <= end]
    busy = {(i, j): matmuls[j - 1] - matmuls[i] for i, j in regions if matmuls[j - 1] > matmuls[i]}
    for i, j in regions:
        if (i, j) in busy:
            around = min((r for r in busy if r[0] < i and j <= r[1]), key=lambda r: r[1] - r[0], default=(start, end))
            beside = [r for r in busy if around[0] <= r[0] and r[1] <= around[1] and r != around and (r[1] <= i + 1 or j <= r[0] + 1)]
            if any(busy[r] > busy[i, j] for r in beside):
                out -= set(range(i + 1, j))
        elif (j - i > BOOKKEEPING and not any(_COPY.search(line) for line in lines[i:j])) or any(i < a <= b < j for a, b in loops):
            out -= set(range(i + 1, j))
    return sorted(out)
