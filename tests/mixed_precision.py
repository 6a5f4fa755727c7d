"""Does training in bfloat16 reach what float32 reaches? The table of docs/scale.md.

    python -m tests.mixed_precision [STEPS]         # 2,000 steps, two seeds in both: twenty minutes on two busy CPU cores

Seeds fix the batches, noise and times, so that of one seed both see the same. Means of the loss over the last tenth of the steps; its
noise is what other seeds do to it in float32.
"""

import sys

import numpy as np

from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.training.loop import Observers, Schedule, train
from flowjax.training.metrics import MetricWriter
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import FlowTask

SEEDS = (0, 1)


class Kept(MetricWriter):
    """Holds the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.losses += [values["loss"]] if "loss" in values else []

    def close(self) -> None:
        pass


def last_tenth(dtype: str, seed: int, steps: int) -> float:
    """Mean loss over the last tenth of a run on digits: the preset's batches and learning rate, and a Mi/4."""
    digits = records()
    task = FlowTask(Architecture.named("Mi/4", digits.shape, 10), Objective(), digits.normalization, dtype)
    trainer = Trainer(task, make_optimizer(3e-3, warmup=50, decay_steps=steps), make_mesh(1, 1), ema_decay=0.999)
    kept = Kept()
    batches = Batches(digits, 128, seed=seed, label_dropout=0.1)
    train(trainer, batches, Schedule(steps, log_every=1), seed=seed, observers=Observers(lambda first: kept))
    return float(np.mean(kept.losses[-max(1, steps // 10) :]))


def main() -> None:
    """Print a row for each run, and the comparison."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for seed in SEEDS:
        for dtype, losses in found.items():
            losses.append(last_tenth(dtype, seed, steps))
            print(f"seed {seed}  {dtype:9}  {losses[-1]:.5f}", flush=True)
    exact, short = (np.array(losses) for losses in found.values())
    print(f"bfloat16 - float32, same seed: {np.array2string(short - exact, precision=5)}, mean {np.mean(short - exact):+.5f}")
    print(f"standard deviation of float32 over seeds: {exact.std(ddof=1):.5f}; bfloat16 / float32: {short.mean() / exact.mean():.4f}")


if __name__ == "__main__":
    main()
