"""The arithmetic that a plan adds to what the compiler says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.training.plan import Choice, Planned, alternatives, count_flops, state_bytes, summarize
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import FlowTask
from kernels.tpu_tools.hlo import Collective


def test_flops_are_those_of_every_product_in_loops_and_on_all_devices() -> None:
    a, b = jnp.ones((4, 8)), jnp.ones((8, 16))
    once = 2 * 4 * 8 * 16

    def looped(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry + (a @ b).sum(), None), 0.0, length=5)[0]

    assert count_flops(jax.make_jaxpr(looped)(a, b).jaxpr) == 5 * once
    assert count_flops(jax.make_jaxpr(jax.grad(lambda a: jnp.sin(a @ b).sum()))(a).jaxpr) == 2 * once
    mesh = make_mesh(2, 2)
    dealt = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"), check_vma=False)
    assert count_flops(jax.make_jaxpr(dealt)(a, b).jaxpr) == 2 * once  # half of it on each of four: fsdp repeats it


def test_the_state_is_shared_along_fsdp() -> None:
    def bytes_of(batch: int, fsdp: int) -> int:
        shape = Architecture((8, 8, 4), patch=1, depth=2, width=64, heads=2, num_classes=7)
        return state_bytes(Trainer(FlowTask(shape, Objective()), make_optimizer(1e-3), make_mesh(batch, fsdp)))

    assert bytes_of(8, 1) == pytest.approx(4 * bytes_of(2, 4), rel=0.1)


def test_collectives_are_named_by_the_axis_along_which_they_go() -> None:
    found = [
        Collective("all-gather", 3, 100, (), (0, 1, 2, 3)),
        Collective("all-reduce", 1, 80, (), (0, 4)),
        Collective("all-reduce", 1, 8, (), tuple(range(8))),
        Collective("collective-permute", 1, 16, (), ()),
        Collective("all-gather", 1, 300, (), (0, 1, 2, 3)),
    ]
    assert [dataclasses.astuple(one) for one in summarize(found, (2, 4))] == [
        ("all-gather", "fsdp", 4, 600, 300, 450),
        ("all-reduce", "batch", 1, 80, 80, 80),
        ("collective-permute", "neighbours", 1, 16, 16, 16),
        ("all-reduce", "both", 1, 8, 8, 14),
    ]


def test_what_is_tried_next() -> None:
    """Less is computed again where the step fits; where it does not, first the state is shared by more, then more is computed again."""
    choice = Choice(batch=4, fsdp=2, remat="dots", accumulation=1)

    def tried(fits: bool) -> list[Choice]:
        return list(alternatives(Planned(choice, fits, None, 0, 0.0, (), {"compute": 1.0}, 0.0)))

    assert tried(True) == [dataclasses.replace(choice, remat="none")]
    some = tried(False)
    assert some[:3] == [Choice(2, 4, "dots", 1), Choice(1, 8, "dots", 1), Choice(1, 8, "full", 1)]
    assert all(one.batch * one.fsdp == 8 for one in some)
    assert np.diff([one.accumulation for one in some[2:]]).min() > 0
