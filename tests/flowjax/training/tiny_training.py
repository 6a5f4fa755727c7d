"""A trainer of a tiny model on the digits, and its batches."""

from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import FlowTask

SHAPE = Architecture(image_shape=(8, 8, 1), patch=4, depth=2, width=24, heads=2, num_classes=10)


def trainer(batch: int = 1, fsdp: int = 1, accumulation: int = 1, scan: bool = False, target: str = "cfm", rate: float = 1e-3) -> Trainer:
    digits = records()
    task = FlowTask(SHAPE, Objective(target=target), digits.normalization, scan=scan)
    return Trainer(task, make_optimizer(rate, clip=1.0), make_mesh(batch, fsdp), accumulation=accumulation)


def batches(size: int = 16) -> Batches:
    return Batches(records(), size, seed=0, label_dropout=0.1)
