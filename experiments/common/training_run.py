"""What `experiments.train` runs: its trainer, its data and its evaluation from a configuration."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.common import app, multihost
from experiments.common.data import load_data, open_data
from experiments.common.evaluation import (
    AutoencoderEvaluation,
    ClassifierEvaluation,
    FlowEvaluation,
    NoEvaluation,
    Parts,
    classifier_task,
    train_classifier,
)
from flowjax import data
from flowjax.data.normalization import IDENTITY
from flowjax.data.pipeline import Batches
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.oracle import Oracle
from flowjax.path import path_by_name
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime import processes
from flowjax.runtime.memory import keep_memory
from flowjax.runtime.watchdog import Watchdog
from flowjax.schedules import TimeDistribution
from flowjax.training.autoencoding import AutoencoderTask
from flowjax.training.checkpoint import Checkpointer
from flowjax.training.loop import Observers, Schedule, Trained, train
from flowjax.training.metrics import MetricWriter, NoMetricWriter, NoProgressLine, ProgressLine, read_metrics
from flowjax.training.sharding import make_mesh, oracle_mesh, own_mesh, replicated
from flowjax.training.step import Trainer, make_optimizer, parameters_digest
from flowjax.training.tasks import ClassifierTask, FlowTask


def train_and_evaluate(config: ConfigDict, workdir: WorkDir, free: Sequence[str]) -> str:
    """Train, evaluate and report; returns the sentence to take away.

    Args:
      free: keys of the configuration that may differ from those of the checkpoint that it resumes from.
    """
    started = time.perf_counter()
    keep_memory()
    records, parts = processes.together(lambda: _data(config))
    processes.check_same({"data": records.fingerprint()})
    trainer = make_trainer(config, records, make_mesh(config.mesh.batch, config.mesh.fsdp))
    schedule = Schedule(config.steps, config.log_every, config.evaluate_every)
    batches = _batches(config, parts[0] if parts else records)
    trainer.check_batch(batches.batch_size)
    trainer.abstract()  # whatever the model itself refuses
    checkpointer = Checkpointer(
        workdir.live("checkpoints"), every=config.checkpoint_every, keep=config.keep_checkpoints, meta=_meta(config, records, free)
    )
    first = processes.is_first()
    evaluation = _evaluation(config, trainer, records, parts, workdir) if first else NoEvaluation()
    trained = train(
        trainer,
        batches,
        schedule,
        seed=config.seed,
        constants=_constants(config, trainer, parts),
        checkpointer=checkpointer,
        observers=Observers(
            writer=lambda done: _writer(workdir, done + 1) if first else NoMetricWriter(),
            progress=lambda: ProgressLine(config.steps) if first else NoProgressLine(),
            evaluate=evaluation,
            watchdog=Watchdog(multihost.step_timeout()),
        ),
    )
    if not first:  # which evaluates and reports
        return ""
    found = evaluation.finish(trained.state)
    takeaway = evaluation.takeaway or f"Trained a {config.task} on {records.name} to a loss of {trained.final_loss:.4g}."
    origin = app.provenance("train", config, started)
    workdir.write_json("summary.json", _summary(config, records, trainer, trained) | found | {"takeaway": takeaway, **origin})
    lines = read_metrics(workdir.live("metrics.jsonl"))
    from flowjax.reporting.samples import training_figure

    figure = workdir.save_figure("training", training_figure(lines))
    section = Section("Training", "Every number is in metrics.jsonl and in TensorBoard's files.", figure, alt="Loss against steps")
    workdir.write_report(f"A {config.task} trained on {records.name}", takeaway, [section, *evaluation.sections(workdir)], origin)
    return takeaway


def _writer(workdir: WorkDir, first_step: int) -> MetricWriter:
    return MetricWriter(workdir.live("metrics.jsonl"), workdir.live("tensorboard"), first_step)


def _data(config: ConfigDict) -> tuple[data.Records, Parts | None]:
    """The samples as stored; and in memory, where that is wanted: those to train on, and those held out."""
    records = open_data(config.data)
    if not _in_memory(config):
        return records, None
    whole = load_data(config.data)
    if not config.heldout_fraction:
        return records, (whole, None)
    return records, whole.split(config.heldout_fraction, config.seed)


def make_trainer(config: ConfigDict, records: data.Records, mesh: Mesh, *, scan: bool | None = None) -> Trainer:
    """The trainer of a configuration, validated before anything is allocated.

    Args:
      scan: see `LightningDiT`.
    """
    optimizer = make_optimizer(**config.optimizer.to_dict())
    normalization = IDENTITY if _in_memory(config) else records.normalization
    task: FlowTask | ClassifierTask | AutoencoderTask
    if config.task == "flow":
        shape = Architecture.named(config.model.size, records.shape, records.num_embedded(), qk_norm=config.model.qk_norm)
        if config.model.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model.dtype = {config.model.dtype!r}: expected float32 or bfloat16")
        times = TimeDistribution(**config.objective.times.to_dict())
        objective = Objective(path_by_name(config.objective.path), config.objective.target, times, config.objective.cosine_weight)
        task = FlowTask(shape, objective, normalization, config.model.dtype, config.model.remat, scan)
    elif config.task == "classifier":
        task = classifier_task(records, normalization)
    elif config.task == "autoencoder":
        height, width, channels = classifier_task(records).image_shape
        wanted = config.autoencoder.to_dict()
        align = classifier_task(records) if wanted.pop("align") else None
        task = AutoencoderTask((height, width, channels), **wanted, align=align, normalization=normalization)
    else:
        raise ValueError(f"task = {config.task!r}: expected flow, classifier or autoencoder")
    return Trainer(task, optimizer, mesh, config.ema_decay, config.accumulation)


def _in_memory(config: ConfigDict) -> bool:
    return bool(config.evaluation.oracle or config.heldout_fraction or config.objective.target == "oracle" or config.task == "autoencoder")


def _batches(config: ConfigDict, samples: data.Records | data.DataSet) -> Batches:
    return Batches(
        samples,
        config.batch_size,
        seed=config.seed,
        flips=config.data.flips and not isinstance(samples, data.DataSet),  # in memory the mirror images are samples of their own
        label_dropout=config.label_dropout if config.task == "flow" and samples.labels is not None else 0.0,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _constants(config: ConfigDict, trainer: Trainer, parts: Parts | None) -> Any:
    """Constants of the loss: the oracle of the data, or a frozen network."""
    if isinstance(trainer.task, FlowTask) and config.objective.target == "oracle":
        assert parts is not None
        mesh = oracle_mesh(trainer.mesh) if trainer.mesh.size > 1 else None
        return Oracle(parts[0].data, parts[0].labels, path=path_by_name(config.objective.path), mesh=mesh)
    if isinstance(trainer.task, AutoencoderTask) and trainer.task.align is not None:
        assert parts is not None
        return replicated(train_classifier(config, parts[0], own_mesh(trainer.mesh)).parameters, trainer.mesh)
    return None


def _evaluation(config: ConfigDict, trainer: Trainer, records: data.Records, parts: Parts | None, workdir: WorkDir) -> NoEvaluation:
    if isinstance(trainer.task, FlowTask):
        return FlowEvaluation(config, trainer, records, parts, workdir)
    if isinstance(trainer.task, AutoencoderTask) and parts is not None:
        return AutoencoderEvaluation(config, trainer, parts, workdir)
    if isinstance(trainer.task, ClassifierTask) and parts is not None and parts[1] is not None:
        return ClassifierEvaluation(trainer, parts[1])
    return NoEvaluation()


def _meta(config: ConfigDict, records: data.Records, free: Sequence[str]) -> dict[str, Any]:
    """Metadata of a checkpoint, which a run that resumes from it must share."""
    fixed = {key: value for key, value in config.to_dict().items() if key not in free}
    return {**fixed, "samples": records.n, "versions": {"jax": jax.__version__}}


def _summary(config: ConfigDict, records: data.Records, trainer: Trainer, trained: Trained) -> dict[str, Any]:
    return {
        "dataset": records.name,
        "n": records.n,
        "num_classes": records.num_classes,
        "steps": int(trained.state.step),
        "final_loss": trained.final_loss,
        "params_digest": parameters_digest(trained.state.parameters),
        "ema_digest": parameters_digest(trained.state.ema),
        "num_parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trainer.abstract().parameters)),
        "steps_per_second": trained.steps_per_second,
        "compile_seconds": trained.compile_seconds,
        "batch_size": config.batch_size,
        "mesh": dict(trainer.mesh.shape),
        "units": {"t": "0 = noise, 1 = data", "loss": "mean squared error per value of a sample"},
    }
