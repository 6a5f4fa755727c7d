"""Training steps a second, or samples, against the same architecture in PyTorch.

    python -m experiments.bench_training            # extra `bench` (PyTorch); 3 minutes on two CPU cores
    python -m experiments.bench_training --config=experiments/configs/bench_training.py:sampling

Both have the same weights and do the same work on the same batch: forward, backward, clipping, AdamW and the average of parameters; or
Euler's steps from the same noise. They take a few turns each, one after the other, and each is judged by its fastest, so that a busy
machine slows both alike. PyTorch runs eagerly and compiled; the faster counts. Writes config.json, summary.json, bench.csv and
report.html to --workdir (runs/bench_training).
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from flowjax.data.pipeline import Batch
from flowjax.fields import model_field
from flowjax.models import Architecture, export_lightningdit
from flowjax.objective import Objective
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime import extras
from flowjax.runtime.memory import keep_memory
from flowjax.sampling import sample
from flowjax.schedules import uniform_timesteps
from flowjax.training.sharding import make_mesh, place_batch
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import FlowTask

EMA = 0.999
IN_A_ROW = 3  # turns of one before the other's: the first finds the caches full of what the other left


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """Time both; returns the sentence to take away."""
    started = time.perf_counter()
    keep_memory()
    shape = Architecture(tuple(config.image_shape), **config.model.to_dict())
    rng = np.random.default_rng(config.seed)
    x = rng.standard_normal((config.batch_size, *shape.image_shape)).astype(np.float32)
    label = rng.integers(0, shape.num_classes + 1, config.batch_size).astype(np.int32)
    trainer = Trainer(FlowTask(shape, Objective(), dtype=config.dtype), make_optimizer(2e-4), make_mesh(1, 1), EMA)
    trainer.check_batch(config.batch_size)
    if config.sampling_steps:
        ours, compile_seconds, tensors = _our_sampling(trainer, x, label, config)
        what = f"{config.batch_size} samples in {config.sampling_steps} steps take"
    else:
        ours, compile_seconds, tensors = _ours(trainer, Batch(x, label), config.seed)
        what = "A training step takes"
    steps = {"flowjax": ours} | _theirs(config, shape, tensors, x, label)
    compiled = {"flowjax": compile_seconds} | {name: _seconds(step) for name, step in steps.items() if name != "flowjax"}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in app.progress("steps")(range(config.repeats)):
        for name, step in steps.items():
            seconds[name] += [_seconds(step) for _ in range(IN_A_ROW)]
    rows = [
        {
            "implementation": name,
            "seconds": min(taken),
            "median": float(np.median(taken)),
            "first_seconds": compiled[name],
        }
        for name, taken in seconds.items()
    ]
    fastest = {name: min(taken) for name, taken in seconds.items()}
    best = min((name for name in fastest if name != "flowjax"), key=lambda name: fastest[name])
    ratio = fastest[best] / fastest["flowjax"]
    takeaway = (
        f"{what} {fastest['flowjax']:.3f} s, and {fastest[best]:.3f} s in {best}: "
        f"{ratio:.2f} times the speed, after {compile_seconds:.1f} s of compiling."
    )
    origin = app.provenance("bench_training", config, started)
    origin["versions"]["torch"] = _torch().__version__
    summary = {"ratio": ratio, "compile_seconds": compile_seconds, "results": rows, "takeaway": takeaway}
    workdir.write_json("summary.json", summary | {"units": {"ratio": "PyTorch's seconds over flowjax's"}, **origin})
    workdir.write_csv("bench.csv", rows)
    section = Section("Every implementation", "Seconds of the fastest turn; the first one includes compiling.", table=rows)
    workdir.write_report("Beside PyTorch", takeaway, [section], origin)
    return takeaway


def _seconds(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _ours(trainer: Trainer, batch: Batch, seed: int) -> tuple[Callable[[], Any], float, dict[str, np.ndarray]]:
    state = trainer.init(seed)
    tensors = export_lightningdit(trainer.model(state.parameters))
    placed = place_batch(batch, trainer.mesh)
    started = time.perf_counter()
    program = trainer.step().lower(state, placed, None).compile()
    compile_seconds = time.perf_counter() - started

    def step() -> None:
        nonlocal state
        state, metrics = program(state, placed, None)
        jax.block_until_ready((state, metrics))

    step()
    return step, compile_seconds, tensors


def _our_sampling(trainer: Trainer, x_0: np.ndarray, label: np.ndarray, config: ConfigDict) -> tuple[Callable[[], Any], float, Any]:
    model = trainer.model(trainer.init(config.seed).parameters)
    field, start, told = model_field(model, model.shape.num_classes), jnp.asarray(x_0), jnp.asarray(label)
    edges = jnp.asarray(uniform_timesteps(config.sampling_steps), jnp.float32)
    started = time.perf_counter()
    jax.block_until_ready(sample(field, start, edges, told))
    return (
        lambda: jax.block_until_ready(sample(field, start, edges, told)),
        time.perf_counter() - started,
        export_lightningdit(model),
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise extras.missing("experiments.bench_training", error, "bench") from None
    return torch


def _theirs(
    config: ConfigDict, shape: Architecture, tensors: dict[str, np.ndarray], x: np.ndarray, label: np.ndarray
) -> dict[str, Callable[[], Any]]:
    torch = _torch()
    from experiments.common.torch_lightningdit import TorchLightningDiT

    torch.manual_seed(config.seed)
    x_1, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(label).long()

    def make(compiled: bool) -> Callable[[], Any]:
        model = TorchLightningDiT(shape)
        model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
        trained = [p for p in model.parameters() if p.requires_grad]
        average = [p.detach().clone() for p in trained]
        optimizer = torch.optim.AdamW(trained, lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0, foreach=True)
        forward = torch.compile(model) if compiled else model
        count = config.sampling_steps

        def sampled() -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16"):
                x = x_1
                for i in range(count):
                    x = x + forward(x, torch.full((len(x),), i / count), labels) / count

        def step() -> None:
            x_0, t = torch.randn_like(x_1), torch.rand(len(x_1))
            time_of = t[:, None, None, None]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16"):
                velocity = forward(time_of * x_1 + (1 - time_of) * x_0, t, labels)
            loss = (velocity.float() - (x_1 - x_0)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, trained, 1 - EMA)

        return sampled if count else step

    return {"PyTorch, eager": make(False)} | ({"PyTorch, compiled": make(True)} if config.compile_torch else {})


if __name__ == "__main__":
    app.main("bench_training", run)
