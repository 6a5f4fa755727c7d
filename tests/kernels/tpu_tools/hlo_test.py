"""A program's text, read: what the devices do, however it is wrapped, and how often."""

from kernels.tpu_tools.hlo import Collective, collectives

TPU = """
HloModule step

%reduce_scatter (input: f32[8,128]) -> f32[2,128] {
  %input = f32[8,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[8,128]{1,0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %part = f32[2,128]{1,0} dynamic-slice(%all-reduce.1, %i, %z), dynamic_slice_sizes={2,128}
}

%start (p: bf16[2,128]) -> (bf16[2,128], bf16[8,128]) {
  %all-gather.1 = bf16[8,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}

%done (p: bf16[2,128]) -> bf16[8,128] {
  %all-gather.2 = bf16[8,128]{1,0} all-gather(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}

%condition (p: (s32[])) -> pred[] {
  %bound = s32[]{:T(128)} constant(28)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%body (p: (s32[])) -> (s32[]) {
  %s = (bf16[2,128]{1,0}, bf16[8,128]{1,0}, /*index=2*/u32[]) fusion(%w), kind=kCustom, calls=%start
  %g = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%s), kind=kCustom, calls=%done
  %r = f32[2,128]{1,0} fusion(%d), kind=kCustom, calls=%reduce_scatter
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %loop = (s32[]{:T(128)}) while(%t), condition=%condition, body=%body
  %all-reduce-start = (f32[16]{0}, s32[16]{0}) all-reduce-start(%y, %z), replica_groups=[2,4]<=[4,2]T(1,0)
  %all-reduce-done = (f32[16]{0}, s32[16]{0}) all-reduce-done(%all-reduce-start)
  %permute = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1},{1,0}}
  %flags = pred[4,2]{1,0} all-gather(%q), replica_groups={{0,1}}, dimensions={1}
  %whole = (f32[1]{0}, f32[1]{0}, f32[1]{0}, f32[1]{0}, f32[1]{0}, /*index=5*/f32[1]{0}) all-reduce(%a, %b), replica_groups={}
}
"""


def test_loops_fusions_and_asynchronous_pairs_are_counted_as_what_the_devices_do() -> None:
    found = collectives(TPU)
    assert sorted((one.opcode, one.count, one.bytes, one.group) for one in found) == [
        ("all-gather", 1, 8, (0, 1)),
        ("all-gather", 28, 2048, (0, 1, 2, 3)),
        ("all-reduce", 1, 24, ()),
        ("all-reduce", 1, 128, (0, 2, 4, 6)),
        ("collective-permute", 1, 16, ()),
        ("reduce-scatter", 28, 1024, (0, 1, 2, 3)),
    ]


def test_a_loop_that_says_how_often_it_runs() -> None:
    text = TPU.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert {one.count for one in collectives(text) if one.opcode == "reduce-scatter"} == {7}


def test_bytes_sent_are_those_of_a_ring() -> None:
    def sent(opcode: str) -> float:
        return Collective(opcode, 3, 1000, (), (0, 1, 2, 3)).sent(16)

    assert sent("all-gather") == 3 * 750
    assert sent("all-reduce") == 3 * 1500
    assert sent("reduce-scatter") == 3 * 3000  # of a result that is a quarter of what is reduced
    assert Collective("all-reduce", 1, 1600, (), ()).sent(16) == 3000
