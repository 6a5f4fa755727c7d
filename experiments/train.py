"""Train a flow model, and watch navigation and refinement being learnt apart.

    python -m experiments.train                                                              # digits: 3 minutes on two CPU cores
    python -m experiments.train --config.objective.target=oracle --workdir=runs/oracle       # on the exact marginal velocity
    python -m experiments.train --config.objective.times.t_max=0.5 --workdir=runs/early      # a specialist for one stage
    python -m experiments.train --config=experiments/configs/train.py:imagenet_vavae_b1 --config.data.path=FOLDER_OF_SHARDS

`--resume` goes on from the newest checkpoint, or begins where there is none; a run that was stopped, or killed, ends with the parameters
that it would have had. Writes, as it goes, checkpoints/, metrics.jsonl, tensorboard/ and samples/ to --workdir (runs/train), and at its end
config.json, summary.json, loss_by_t.csv, figures/ and report.html. The keys and presets stand in experiments/configs/train.py.
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.data_flags import load_data, open_data
from flowjax import data, stages
from flowjax.data.normalization import IDENTITY
from flowjax.data.pipeline import Batches
from flowjax.metrics.frechet import frechet_distance
from flowjax.metrics.loss_by_t import LossByTime, LossByTimeMeter
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.oracle import Oracle
from flowjax.path import path_by_name
from flowjax.reporting.page import Section
from flowjax.reporting.samples import loss_by_t_figure, sample_grid, training_figure
from flowjax.reporting.workdir import WorkDir
from flowjax.sampling import heun
from flowjax.schedules import TimeDistribution, uniform_timesteps
from flowjax.sweep import draw_pairs
from flowjax.training.checkpoint import Checkpointer
from flowjax.training.loop import Schedule, Trained, train
from flowjax.training.metrics import MetricWriter, ProgressLine, read_metrics
from flowjax.training.sharding import make_mesh
from flowjax.training.step import State, Trainer, make_optimizer, parameters_digest
from flowjax.training.tasks import ClassifierTask, FlowTask

LIVE = ("checkpoints", "metrics.jsonl", "tensorboard", "samples")
FREE = ("steps", "mesh", "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "evaluation")
"""Keys that may change when a run is resumed: the parameters of a step do not depend on them."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """Train, evaluate and report; returns the sentence to take away."""
    started = time.perf_counter()
    records, parts = _data(config)
    trainer = _trainer(config, records)
    schedule = Schedule(config.steps, config.log_every, config.evaluate_every)
    batches = _batches(config, parts[0] if parts else records)
    trainer.check_batch(batches.batch_size)
    trainer.abstract()  # whatever the model itself refuses
    checkpointer = Checkpointer(
        workdir.live("checkpoints"), every=config.checkpoint_every, keep=config.keep_checkpoints, meta=_meta(config, records)
    )
    evaluation: Evaluation | NoEvaluation = NoEvaluation()
    if config.task == "flow":
        evaluation = Evaluation(config, trainer, records, parts, workdir)
    trained = train(
        trainer,
        batches,
        schedule,
        seed=config.seed,
        constants=_constants(config, parts),
        checkpointer=checkpointer,
        writer=lambda first: MetricWriter(workdir.live("metrics.jsonl"), workdir.live("tensorboard"), first + 1),
        progress=lambda first: ProgressLine(config.steps, first),
        evaluate=evaluation,
    )
    found = evaluation.finish(trained.state)
    takeaway = evaluation.takeaway or f"Trained a {config.task} on {records.name} to a loss of {trained.final_loss:.4g}."
    origin = runner.provenance("train", config, started)
    workdir.write_json("summary.json", _summary(config, records, trainer, trained) | found | {"takeaway": takeaway, **origin})
    lines = read_metrics(workdir.live("metrics.jsonl"))
    figure = workdir.save_figure("training", training_figure(lines))
    section = Section("Training", "Every number is in metrics.jsonl and in TensorBoard's files.", figure, alt="Loss against steps")
    workdir.write_report(f"A {config.task} trained on {records.name}", takeaway, [section, *evaluation.sections(workdir)], origin)
    return takeaway


def _data(config: ConfigDict) -> tuple[data.Records, tuple[data.DataSet, data.DataSet | None] | None]:
    """The samples as stored; and in memory, where that is wanted: those to train on, and those held out."""
    records = open_data(config.data)
    if not config.evaluation.oracle and not config.heldout_fraction and config.objective.target != "oracle":
        return records, None
    whole = load_data(config.data)
    if not config.heldout_fraction:
        return records, (whole, None)
    return records, whole.split(config.heldout_fraction, config.seed)


def _trainer(config: ConfigDict, records: data.Records) -> Trainer:
    """Everything that the configuration can get wrong is found here, before anything is allocated."""
    mesh = make_mesh(config.mesh.batch, config.mesh.fsdp)
    chosen = config.optimizer.to_dict()
    decay = chosen.pop("decay")
    optimizer = make_optimizer(**chosen, decay_steps=config.steps if decay else 0)
    normalization = IDENTITY if _in_memory(config) else records.normalization
    task: FlowTask | ClassifierTask
    if config.task == "flow":
        shape = Architecture.named(config.model.size, records.shape, records.num_classes or 0, qk_norm=config.model.qk_norm)
        if config.model.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model.dtype = {config.model.dtype!r}: expected float32 or bfloat16")
        times = TimeDistribution(**config.objective.times.to_dict())
        objective = Objective(path_by_name(config.objective.path), config.objective.target, times, config.objective.cosine_weight)
        task = FlowTask(shape, objective, normalization, config.model.dtype, config.model.remat)
    elif config.task == "classifier":
        task = _classifier(records, normalization)
    else:
        raise ValueError(f"task = {config.task!r}: expected flow or classifier")
    return Trainer(task, optimizer, mesh, config.ema_decay, config.accumulation)


def _classifier(records: data.Records | data.DataSet, normalization: Any = IDENTITY) -> ClassifierTask:
    if records.num_classes is None:
        raise ValueError(f"task = 'classifier': {records.name} has no labels")
    if len(records.shape) != 3:
        raise ValueError(f"task = 'classifier': expected images [H, W, C], got samples of shape {records.shape}")
    height, width, channels = records.shape
    return ClassifierTask((height, width, channels), records.num_classes, normalization)


def _in_memory(config: ConfigDict) -> bool:
    return bool(config.evaluation.oracle or config.heldout_fraction or config.objective.target == "oracle")


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


def _constants(config: ConfigDict, parts: tuple[data.DataSet, data.DataSet | None] | None) -> Oracle | None:
    if config.task != "flow" or config.objective.target != "oracle":
        return None
    assert parts is not None
    return Oracle(parts[0].data, parts[0].labels, path=path_by_name(config.objective.path))


def _meta(config: ConfigDict, records: data.Records) -> dict[str, Any]:
    """What a checkpoint remembers, and what a run that resumes it must share."""
    fixed = {key: value for key, value in config.to_dict().items() if key not in FREE}
    if config.optimizer.decay:
        fixed["steps"] = config.steps  # the learning rate follows from them
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


class NoEvaluation:
    """Looks at nothing."""

    takeaway: str | None = None

    def __call__(self, step: int, state: State) -> dict[str, float]:
        return {}

    def finish(self, state: State) -> dict[str, Any]:
        return {}

    def sections(self, workdir: WorkDir) -> list[Section]:
        return []


class Evaluation(NoEvaluation):
    """What is looked at while a flow model trains: a grid of samples, and the loss by t on each side of the turning point."""

    def __init__(
        self,
        config: ConfigDict,
        trainer: Trainer,
        records: data.Records,
        parts: tuple[data.DataSet, data.DataSet | None] | None,
        workdir: WorkDir,
    ):
        self._config, self._trainer, self._records, self._parts, self._workdir = config, trainer, records, parts, workdir
        self._turning_point: float | None = None
        self._meter: LossByTimeMeter | None = None
        self._last: LossByTime | None = None
        self._frechet: dict[str, float] | None = None
        path = path_by_name(config.objective.path)
        if parts is not None and config.evaluation.oracle:
            train_set = parts[0]
            self._turning_point = stages.predict_turning_point_from_data(train_set.data, train_set.labels, path)
            pairs = draw_pairs(train_set.data, config.evaluation.queries, config.seed, labels=train_set.labels)
            times = (np.arange(config.evaluation.times) + 0.5) / config.evaluation.times
            self._meter = LossByTimeMeter(Oracle(train_set.data, train_set.labels, path=path), pairs, times)
        self._field = jax.jit(lambda parameters, x, t, label: trainer.model(parameters)(x, t, label))
        self._sampler = jax.jit(lambda parameters, x_0, t, label: heun(lambda x, s, y: trainer.model(parameters)(x, s, y), x_0, t, label))

    def __call__(self, step: int, state: State) -> dict[str, float]:
        picture = sample_grid(self._samples(state, self._config.evaluation.grid)[0], self._value_range, columns=10)
        folder = self._workdir.live("samples")
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{step:08d}.png")
        if self._meter is None:
            return {}
        self._last = self._meter(functools.partial(self._field, state.ema))
        return self._last.split(self._turning_point)

    @property
    def _value_range(self) -> tuple[float, float]:
        if self._parts is not None and self._parts[0].value_range is not None:
            return self._parts[0].value_range
        return self._records.value_range or (-3.0, 3.0)

    def _samples(self, state: State, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples of the averaged model: every class in turn; in parts of one size, so that one program is compiled."""
        classes, part = self._records.num_classes, 100
        label = None if classes is None else np.arange(count, dtype=np.int32) % classes
        t = uniform_timesteps(self._config.evaluation.sampler_steps).astype(np.float32)
        rng, found = np.random.default_rng(self._config.seed), []
        for start in range(0, count, part):
            x_0 = rng.standard_normal((part, *self._records.shape), np.float32)
            own = None if label is None else jnp.asarray(np.resize(label[start : start + part], part))
            found.append(np.asarray(self._sampler(state.ema, x_0, t, own)))
        return np.concatenate(found)[:count], label

    def finish(self, state: State) -> dict[str, Any]:
        """The Fréchet distance, and what the summary holds of the rest."""
        self._frechet = self._distance(state)
        found: dict[str, Any] = {"turning_point": {"predicted": self._turning_point}}
        if self._last is not None:
            self._workdir.write_csv(
                "loss_by_t.csv", [dict(zip(("t", "cfm", "oracle"), row, strict=True)) for row in zip(*self._last, strict=True)]
            )
            found["loss_by_stage"] = self._last.split(self._turning_point)
        if self._frechet is not None:
            found["frechet"] = self._frechet
            self.takeaway = (
                f"Samples of a {self._config.model.size} trained on {self._records.name} lie at a Fréchet distance of "
                f"{self._frechet['samples']:.3g} from the held-out half, {self._frechet['ratio']:.2f} times that of the training half."
            )
        return found

    def _distance(self, state: State) -> dict[str, float] | None:
        """Distances from the held-out samples: of the model's, and of the training ones."""
        wanted = self._config.evaluation
        train_set, heldout = self._parts or (None, None)
        if not wanted.frechet_samples or train_set is None or heldout is None or self._records.num_classes is None:
            return None
        features = self._features(self._records.load())
        count = wanted.frechet_samples
        samples = features(self._samples(state, count)[0])
        real, seen = features(heldout.data[:count]), features(train_set.data[:count])
        found = {"samples": frechet_distance(samples, real), "train": frechet_distance(seen, real)}
        return found | {"ratio": found["samples"] / found["train"], "n": count}

    def _features(self, labelled: data.DataSet) -> Any:
        """Features of a classifier that has seen both halves alike, trained by the same loop."""
        trainer = Trainer(_classifier(labelled), make_optimizer(1e-3, warmup=20), self._trainer.mesh, ema_decay=0.99)
        batches = Batches(labelled, self._config.batch_size, seed=self._config.seed)
        trained = train(trainer, batches, Schedule(self._config.evaluation.classifier_steps), seed=self._config.seed)
        program = jax.jit(lambda parameters, x: trainer.model(parameters).features(x))
        return lambda x: np.concatenate([np.asarray(program(trained.state.ema, part)) for part in np.array_split(x, -(-len(x) // 1024))])

    def sections(self, workdir: WorkDir) -> list[Section]:
        found = []
        if self._last is not None:
            figure = workdir.save_figure("loss_by_t", loss_by_t_figure(self._last, self._turning_point))
            text = "What the averaged model gets wrong, about the CFM target and about the oracle. They differ by what no model can know."
            found.append(Section("Loss by time", text, figure, alt="Error against t, two curves"))
        pictures = sorted(workdir.live("samples").glob("*.png"))
        if pictures:
            found.append(
                Section("Samples", f"After {int(pictures[-1].stem):,} steps; a column for each class.", pictures[-1], alt="Samples")
            )
        if self._frechet is not None:
            text = "Between features of a small classifier, from the held-out half; the training half is what could be hoped for."
            found.append(Section("Fréchet distance", text, table=[self._frechet]))
        return found


if __name__ == "__main__":
    runner.main("train", run, live=LIVE)
