"""The parser of the TPU compiler's schedules, on a program small enough to count by hand."""

import pytest

from kernels.tpu_tools.schedule import BUNDLES, UNITS, Schedule, parse_schedule, read_schedule

RARE = 70
"""Bundles of a region without a matmul: longer than bookkeeping."""


def program() -> tuple[str, str]:
    """A loop: a copy, a rare region, a long one that copies what has no known size, two of matmuls of which a step enters one, a spill."""
    bundles, units = [], []

    def add(text: str, matmul: int = 0, fill: int = 0, spill: int = 0) -> None:
        bundles.append(f"{hex(len(bundles)) if bundles else '0':>7}   : > {{ {text} }}")
        units.append(f"{matmul} {fill} {fill} {spill} {spill}")

    add("%s0 = inlined_call_operand.vmem [shape: s32[1,2]]")
    add("%1 = dma.hbm_to_vmem [thread:$0]  /*hbm=*/%s3, /*size_in_granules=*/128, /*vmem=*/%s4")  # the loop starts here
    add(f"%2 = sbr.rel (%p1) target bundleno = {3 + RARE} (0x49), region = 1")
    for _ in range(RARE):
        add("%3 = vst [vmem:[%s1]] %v1", spill=1)
    add(f"%21 = sbr.rel (%p8) target bundleno = {len(bundles) + RARE + 1} (0x49), region = 4")
    for i in range(RARE):
        add(
            "%23 = dma.hbm_to_vmem [thread:$0]  /*hbm=*/%s3, /*size_in_granules=*/%s9, /*vmem=*/%s4"
            if i == 9
            else "%24 = sadd.s32 %s5, %s6"
        )
    add(f"%31 = sbr.rel (!%p7_p9) target bundleno = {len(bundles) + 31} (0x90), region = 5")
    for _ in range(30):
        add("%35 = vmatmul.mubr.bf16.mxu0 %v2", matmul=1)
    add(f"%4 = sbr.rel (!%p2_p9) target bundleno = {len(bundles) + 71} (0x90), region = 2")
    for _ in range(70):
        add("%5 = vmatmul.mubr.bf16.mxu0 %v2 ;;  %6 = vpop.f32.mrf.mxu0", matmul=2)
    add("%7 = vld [vmem:[#allocation3_spill]]", fill=1)
    bundles[-1] += "\n  ;;  %8 = vst [vmem:[#allocation3_spill]] %v3"
    add("%9 = sbr.rel (!%p3) target bundleno = 1 (0x1), region = 3")
    add("%10 = vst [vmem:[%s9]] %v9", spill=1)
    names = "MATMUL, VLOAD, VLOAD:FILL, VSTORE, VSTORE:SPILL"
    head = "Schedule legend\nPB: predicated region body\n\n"
    return head + "\n".join(bundles), "\n".join(["== CAPACITY:", names, "2 3 3 2 2", "== UTILIZATION:", *units])


CYCLES = 2 + 1 + RARE + 1 + 1 + 70 + 2
EXPECTED = Schedule(
    cycles=CYCLES,
    busy={"MATMUL": 140 / (2 * CYCLES), "VLOAD": 1 / (3 * CYCLES), "VLOAD:FILL": 1 / (3 * CYCLES), "VSTORE": 0.0, "VSTORE:SPILL": 0.0},
    fills=1,
    spills=0,
    copies=(128 * 32, None),
    kernel_cycles=1 + CYCLES + RARE + 30 + 1,
)


def test_the_steady_loop_is_counted_without_what_is_rare():
    """The longest loop, less the region that holds no matmul and no copy, and the one that holds fewer matmuls than that beside it."""
    assert parse_schedule(*program()) == EXPECTED


def test_files_are_found_by_the_kernels_name(tmp_path):
    bundles, units = program()
    (tmp_path / f"17-posterior_pass.1-65{BUNDLES}").write_text(bundles)
    (tmp_path / f"17-posterior_pass.1-64-schedule-analysis{BUNDLES}").write_text("nothing of use")
    (tmp_path / f"17-posterior_pass.1-68-{UNITS}").write_text(units)
    assert read_schedule(tmp_path, "posterior_pass") == EXPECTED
    with pytest.raises(ValueError, match="no schedule of a kernel 'other'"):
        read_schedule(tmp_path, "other")


def test_texts_that_do_not_belong_together_are_refused():
    bundles, units = program()
    with pytest.raises(ValueError, match=r"has 249 bundles and the table of units 248 rows"):
        parse_schedule(bundles, units.rsplit("\n", 1)[0])
    with pytest.raises(ValueError, match="no loop"):
        parse_schedule(bundles.replace("sbr.rel", "other"), units)
    with pytest.raises(ValueError, match="bundle 3 follows bundle 1"):
        parse_schedule("\n".join(line for line in bundles.splitlines() if not line.strip().startswith("0x2 ")), units)
