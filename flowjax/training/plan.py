"""Memory, FLOPs and traffic of a training step on devices that are not available, from the compiler for them."""

import dataclasses
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flowjax.training.sharding import AXES
from flowjax.training.step import Trainer
from kernels.posterior.pallas.tpu_blocks import Generation
from kernels.tpu_tools.compiler import Memory, memory_of
from kernels.tpu_tools.hlo import Collective, collectives

_OVERFLOW = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm")
_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The division of a step among devices, and the values it keeps for the backward pass."""

    batch: int
    fsdp: int
    remat: str
    accumulation: int


@dataclasses.dataclass(frozen=True)
class Used:
    """All collectives of one kind along one axis of the mesh, in one step."""

    opcode: str
    axis: str
    """batch, fsdp or both, as the mesh has them; neighbours: pairs of devices."""
    count: int
    bytes: int
    """Of their results, on one device."""
    largest: int
    """Of these."""
    sent: int
    """Bytes that each device sends at the least."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """Figures of a compiled step. Bytes and FLOPs are of one device and one step.

    `least` has the seconds below which a step cannot take, by what bounds them: `compute` (FLOPs over the MXU's bfloat16 peak), `memory`
    (arguments and results once, temporaries twice, over HBM's bandwidth) and `network` (bytes sent over that of all links of a chip).
    Nothing says that they are reached, nor that they overlap.
    """

    choice: Choice
    fits: bool
    memory: Memory | None
    """None: the compiler refused; see `asked`."""
    asked: int
    """Bytes of memory."""
    flops: float
    """Of matrix products, what the backward pass computes again included."""
    used: tuple[Used, ...]
    least: dict[str, float]
    compile_seconds: float

    @property
    def seconds(self) -> float:
        """Below which a step cannot take: the largest of `least`."""
        return max(self.least.values())

    @property
    def bound(self) -> str:
        """What bounds it: `compute`, `memory` or `network`."""
        return max(self.least, key=lambda name: self.least[name])


def plan_step(trainer: Trainer, batch: Any, constants: Any, generation: Generation, choice: Choice) -> Planned:
    """Compile a trainer's own step for the devices of its mesh, and read its figures.

    Args:
      trainer: on a mesh of devices that need not be there.
      batch: shapes and dtypes of a whole batch.
      constants: as the task takes them; shapes with shardings will do.
      generation: of the devices.
      choice: what the trainer was made by.
    """
    began = time.monotonic()
    traced = trainer.step().trace(trainer.placed(), _placed(batch, trainer), constants)
    cores = getattr(trainer.mesh.devices.flat[0], "num_cores", 1)
    flops = count_flops(traced.jaxpr.jaxpr) / trainer.mesh.size
    least = {"compute": flops / (generation.bf16_flops * cores)}
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        overflow = _OVERFLOW.search(str(error))
        if overflow is None:
            raise
        asked = round(float(overflow[1]) * _UNIT[overflow[2]])
        return Planned(choice, False, None, asked, flops, (), least, time.monotonic() - began)
    memory, text = memory_of(compiled), compiled.as_text()
    assert text is not None
    used = summarize(collectives(text), trainer.mesh.devices.shape)
    least["memory"] = (memory.arguments + memory.results + 2 * memory.temporaries) / (generation.hbm_bytes * cores)
    least["network"] = sum(use.sent for use in used) / (generation.ici_bytes * cores)
    return Planned(choice, True, memory, memory.total, flops, used, least, time.monotonic() - began)


def state_bytes(trainer: Trainer) -> int:
    """Bytes of the state, and of one gradient, on each device: no step can do with less."""
    state = trainer.placed()
    return sum(_bytes(leaf) for leaf in jax.tree.leaves((state, state.parameters)))


def alternatives(asked: Planned) -> Iterator[Choice]:
    """What else to compile: less computed again if the step fits; else more devices to share the state, more computed again, more parts."""
    choice = asked.choice
    stronger = REMATS[REMATS.index(choice.remat) + 1 :]
    if asked.fits:
        yield from (dataclasses.replace(choice, remat=remat) for remat in REMATS[: REMATS.index(choice.remat)])
        if choice.accumulation > 1:
            yield dataclasses.replace(choice, accumulation=choice.accumulation // 2)
        return
    wider = choice
    while wider.batch % 2 == 0:
        wider = dataclasses.replace(wider, batch=wider.batch // 2, fsdp=wider.fsdp * 2)
        yield wider
    for remat in stronger:
        yield dataclasses.replace(wider, remat=remat)
    parts = dataclasses.replace(wider, remat="full", accumulation=2 * choice.accumulation)
    while parts.accumulation <= 64:
        yield parts
        parts = dataclasses.replace(parts, accumulation=2 * parts.accumulation)


def count_flops(jaxpr: Any) -> float:
    """FLOPs of all matrix products of a program, over all devices; those of a loop without a fixed number of rounds are counted once."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * np.prod(equation.outvars[0].aval.shape) * np.prod([shape[axis] for axis in contracted])
            continue
        inner = [count_flops(part) for part in _inner(equation.params)]
        if equation.primitive.name == "cond":
            total += max(inner)
        elif equation.primitive.name == "scan":
            total += equation.params["length"] * sum(inner)
        elif equation.primitive.name == "shard_map":
            total += equation.params["mesh"].size * sum(inner)
        else:
            total += sum(inner)
    return total


def summarize(found: list[Collective], shape: tuple[int, ...]) -> tuple[Used, ...]:
    """Collectives by kind and axis, those that send most first.

    Args:
      shape: of the mesh, batch x fsdp.
    """
    order = np.arange(np.prod(shape)).reshape(shape)
    axes = {tuple(order.ravel()): "both", (): "both", tuple(order[0]): "fsdp", tuple(order[:, 0]): "batch"}
    sums: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(3))
    largest: dict[tuple[str, str], int] = defaultdict(int)
    for one in found:
        axis = "neighbours" if one.opcode == "collective-permute" else axes.get(tuple(sorted(one.group)), "some")
        sums[one.opcode, axis] += (one.count, one.count * one.bytes, one.sent(order.size))
        largest[one.opcode, axis] = max(largest[one.opcode, axis], one.bytes)
    rows = [Used(*key, int(count), int(size), largest[key], int(sent)) for key, (count, size, sent) in sums.items()]
    return tuple(sorted(rows, key=lambda use: -use.sent))


def _placed(batch: Any, trainer: Trainer) -> Any:
    sharding = NamedSharding(trainer.mesh, PartitionSpec(AXES))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), batch)


def _bytes(leaf: Any) -> int:
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize


def _inner(params: Any) -> Iterator[Any]:
    """The programs that an equation runs."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(part, "jaxpr"):
                yield part.jaxpr
            elif hasattr(part, "eqns"):
                yield part
