"""Will a training run fit a TPU slice, and how long is a step at the least? Asked of the real compiler, with no TPU.

    python -m experiments.plan_training --topology=v5e:16x16 --config=experiments/configs/train.py:imagenet_vavae_xl1
    python -m experiments.plan_training --topology=v5e:2x4 --config.model.size=S/2 --config.batch_size=1024     # of data that are here

The configuration is that of `experiments.train`, and what is compiled is its step; `config.plan` says what the data are like while they
are not here. Where the step does not fit, or computes something again, a few other ways are compiled too (`--alternatives`, a minute each)
and the best is suggested. Needs libtpu: pip install -e ".[tpu]". The last line of output is one JSON object; docs/scale.md explains it.
"""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import open_data
from experiments.common.training_run import make_trainer
from flowjax import data
from flowjax.data.normalization import Normalization
from flowjax.data.pipeline import Batches
from flowjax.oracle import Oracle
from flowjax.path import path_by_name
from flowjax.reporting.tables import text_table
from flowjax.training.plan import Choice, Planned, alternatives, plan_step, state_bytes
from flowjax.training.sharding import make_mesh, oracle_mesh
from flowjax.training.step import Trainer
from kernels.posterior.distributed.sharded import abstract_samples
from kernels.posterior.pallas.tpu_blocks import GIB
from kernels.tpu_tools.compiler import devices_of, generation_of_topology, without_tpu

_TOPOLOGY = flags.DEFINE_string("topology", "v5e:16x16", "Generation and shape of the slice.")
_ALTERNATIVES = flags.DEFINE_integer("alternatives", 2, "How many other ways to compile, at most; a minute each.")


def run(config: ConfigDict) -> None:
    """Plan and print."""
    generation = generation_of_topology(_TOPOLOGY.value)
    if _ALTERNATIVES.value < 0:
        raise ValueError(f"alternatives = {_ALTERNATIVES.value}: expected 0 or more")
    records = _records(config)
    batch = _batch(config, records)
    devices = devices_of(_TOPOLOGY.value)
    capacity = generation.hbm * getattr(devices[0], "num_cores", 1)

    def trainer_of(choice: Choice) -> Trainer:
        own = ConfigDict(config.to_dict())
        own.model.remat, own.accumulation = choice.remat, choice.accumulation
        trainer = make_trainer(own, records, make_mesh(choice.batch, choice.fsdp, devices), scan=True)
        trainer.check_batch(config.batch_size)
        return trainer

    def planned(choice: Choice) -> Planned:
        trainer = trainer_of(choice)
        return plan_step(trainer, batch, _constants(config, records, trainer), generation, choice)

    mesh = make_mesh(config.mesh.batch, config.mesh.fsdp, devices)
    asked = planned(Choice(mesh.shape["batch"], mesh.shape["fsdp"], config.model.remat, config.accumulation))
    print(f"{config.model.size} at batch {config.batch_size:,} on {_TOPOLOGY.value}, {len(devices)} devices:\n")
    print(_facts(asked, capacity), "\n\n" + text_table([dataclasses.asdict(use) for use in asked.used]) if asked.fits else "")
    found = [asked]
    for choice in alternatives(asked):
        if len(found) > _ALTERNATIVES.value or (len(found) > 1 and found[-1].fits):
            break
        if config.batch_size % (mesh.size * choice.accumulation) == 0 and state_bytes(trainer_of(choice)) < capacity:
            found.append(planned(choice))
    print("\n" + text_table([_row(one) for one in found]))
    best = min((one for one in found if one.fits), key=lambda one: (one.seconds, sum(one.least.values())), default=None)
    print("\n" + _suggestion(asked, best))
    print(json.dumps(_summary(config, asked, best, found, capacity)))


def _records(config: ConfigDict) -> data.Records:
    """The data, or what stands for them: as many samples of the same shape, which take no memory."""
    if config.data.path or not len(config.plan.shape):
        return open_data(config.data)
    n, shape, classes = config.plan.n, tuple(config.plan.shape), config.plan.num_classes
    if n < 1 or min(shape) < 1 or classes < 0:
        raise ValueError(
            f"plan.n = {n}, plan.shape = {shape}, plan.num_classes = {classes}: expected sizes of at least 1, and 0 or more classes"
        )
    labels = np.arange(n, dtype=np.int32) % classes if classes else None
    normalization = Normalization(np.zeros(shape[-1]), np.full(shape[-1], 2.0))
    return data.Records("data that are not here", np.broadcast_to(np.float32(0), (n, *shape)), labels, normalization=normalization)


def _batch(config: ConfigDict, records: data.Records) -> Any:
    """Shapes and dtypes of a whole `Batch`."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((config.batch_size, *leaf.shape[1:]), leaf.dtype), Batches(records, 1, seed=0)[0])


def _constants(config: ConfigDict, records: data.Records, trainer: Trainer) -> Oracle | None:
    if config.task != "flow" or config.objective.target != "oracle":
        return None
    labels = records.labels is not None
    samples = abstract_samples(records.n, records.shape, np.dtype(config.data.dtype), oracle_mesh(trainer.mesh), labels=labels)
    return Oracle(samples, path=path_by_name(config.objective.path))


def _facts(one: Planned, capacity: int) -> str:
    choice = one.choice
    division = f"batch {choice.batch} x fsdp {choice.fsdp}, remat {choice.remat}, accumulation {choice.accumulation}"
    if one.memory is None:
        return f"{division}: does not fit. It asks for {one.asked / GIB:.2f} GiB of the {capacity / GIB:.2f} GiB of a device."
    state, temporaries = one.memory.arguments + one.memory.results, one.memory.temporaries
    return "\n".join(
        (
            f"{division}: fits, {one.asked / GIB:.2f} GiB of the {capacity / GIB:.2f} GiB of a device",
            f"  state and batch          {state / GIB:8.2f} GiB",
            f"  gradients, activations   {temporaries / GIB:8.2f} GiB",
            f"  FLOPs a step             {one.flops:8.3g} on each device",
            f"  a step takes at least    {1e3 * one.seconds:8.2f} ms, bound by {one.bound}: "
            + ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in one.least.items()),
            f"  compiled in              {one.compile_seconds:8.1f} s",
        )
    )


def _row(one: Planned) -> dict[str, object]:
    return {
        **dataclasses.asdict(one.choice),
        "fits": one.fits,
        "GiB": one.asked / GIB,
        "TFLOP": one.flops / 1e12,
        **{f"{name}, ms": 1e3 * seconds for name, seconds in one.least.items()},
        "compiled, s": one.compile_seconds,
    }


def _suggestion(asked: Planned, best: Planned | None) -> str:
    if best is None:
        return "Nothing that was compiled fits: allow more --alternatives, or take a larger slice or a smaller batch."
    choice = best.choice
    flags_of = (
        f"--config.mesh.batch={choice.batch} --config.mesh.fsdp={choice.fsdp} --config.model.remat={choice.remat} "
        f"--config.accumulation={choice.accumulation}"
    )
    how = "as asked" if best is asked else flags_of
    return f"Suggested: {how} (a step of at least {1e3 * best.seconds:.2f} ms, {best.asked / GIB:.2f} GiB)"


def _summary(config: ConfigDict, asked: Planned, best: Planned | None, found: list[Planned], capacity: int) -> dict[str, object]:
    return {
        "topology": _TOPOLOGY.value,
        "batch_size": config.batch_size,
        "fits": asked.fits,
        "memory_bytes": asked.asked,
        "memory_limit_bytes": capacity,
        "memory": None if asked.memory is None else asked.memory._asdict(),
        "flops_per_step": asked.flops,
        "collectives": [dataclasses.asdict(use) for use in asked.used],
        "roofline": {"seconds": asked.seconds, "bound": asked.bound, **asked.least},
        "compile_seconds": round(asked.compile_seconds, 1),
        "mesh": {"batch": asked.choice.batch, "fsdp": asked.choice.fsdp},
        "suggestion": None if best is None else dataclasses.asdict(best.choice),
        "compiled": [{**dataclasses.asdict(one.choice), "fits": one.fits, "memory_bytes": one.asked} for one in found],
        "units": {"flops_per_step": "one device", "memory": "bytes of one device", "roofline": "seconds, at the least"},
    }


if __name__ == "__main__":
    without_tpu()
    app.main_without_workdir("plan_training", run, config="train")
