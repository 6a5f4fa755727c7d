"""Evaluations while a model trains, and at the end: samples, the loss by t, distances, reconstructions."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from flowjax import data, stages
from flowjax.analysis.sweep import draw_pairs
from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.pipeline import Batches
from flowjax.fields import model_field
from flowjax.metrics.copies_by_t import CopiesByTime, CopiesByTimeMeter
from flowjax.metrics.frechet import frechet_distance
from flowjax.metrics.loss_by_t import LossByTime, LossByTimeMeter
from flowjax.models import autoencoder
from flowjax.models.trained import FILE, save_trained
from flowjax.oracle import Oracle
from flowjax.path import path_by_name
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime import storage
from flowjax.runtime.strict_json import plain
from flowjax.sampling import HEUN, draw_labels, in_batches, labels_in_proportion, noise, sample
from flowjax.schedules import uniform_timesteps
from flowjax.training.loop import Schedule, train
from flowjax.training.sharding import own_mesh
from flowjax.training.step import State, Trainer, make_optimizer
from flowjax.training.tasks import ClassifierTask

Parts = tuple[data.DataSet, data.DataSet | None]
"""The samples to train on, and those held out, in memory."""


class Frozen(NamedTuple):
    """A classifier that has been trained."""

    task: ClassifierTask
    trainer: Trainer
    parameters: Any


def classifier_task(records: data.Records | data.DataSet, normalization: Normalization = IDENTITY) -> ClassifierTask:
    """The classifier for some data.

    Raises:
      ValueError: data without labels, or that are no images.
    """
    if records.num_classes is None:
        raise ValueError(f"a classifier needs labels, and {records.name} has none")
    if len(records.shape) != 3:
        raise ValueError(f"a classifier needs images [H, W, C], got samples of shape {records.shape}")
    height, width, channels = records.shape
    return ClassifierTask((height, width, channels), records.num_embedded(), normalization)


def train_classifier(config: ConfigDict, labelled: data.DataSet, mesh: Mesh) -> Frozen:
    """A classifier of some data, by the loop that trains everything."""
    task = classifier_task(labelled)
    trainer = Trainer(task, make_optimizer(1e-3, warmup=20), mesh, ema_decay=0.99)
    batches = Batches(labelled, config.batch_size, seed=config.seed)
    return Frozen(task, trainer, train(trainer, batches, Schedule(config.evaluation.classifier_steps), seed=config.seed).state.ema)


def features_of(frozen: Frozen, x: np.ndarray) -> np.ndarray:
    """The features of a classifier for some images."""
    program = jax.jit(lambda parameters, part: frozen.trainer.model(parameters).features(part))
    return np.concatenate([np.asarray(program(frozen.parameters, part)) for part in np.array_split(x, -(-len(x) // 1024))])


def random_rows(n: int, most: int, seed: int) -> np.ndarray:
    """At most so many rows of n, in order, drawn at random: data may lie sorted by class."""
    return np.sort(np.random.default_rng([seed, 4]).permutation(n)[:most])


def _keep(picture: Image.Image, workdir: WorkDir, step: int) -> None:
    folder = workdir.live("samples")
    storage.make(folder)
    storage.write_whole(folder / f"{step:08d}.png", lambda file: picture.save(file, format="png"))


class NoEvaluation:
    """Evaluates nothing."""

    takeaway: str | None = None

    def __call__(self, step: int, state: State) -> dict[str, float]:
        return {}

    def finish(self, state: State) -> dict[str, Any]:
        return {}

    def sections(self, workdir: WorkDir) -> list[Section]:
        return []


class FlowEvaluation(NoEvaluation):
    """Evaluation of a flow model while it trains: a grid of samples, and the loss by t and the copies, on each
    side of the turning point."""

    def __init__(
        self,
        config: ConfigDict,
        trainer: Trainer,
        records: data.Records,
        parts: Parts | None,
        workdir: WorkDir,
    ):
        self._config, self._trainer, self._records, self._parts, self._workdir = config, trainer, records, parts, workdir
        self._turning_point: float | None = None
        self._meter: LossByTimeMeter | None = None
        self._last: LossByTime | None = None
        self._copies_meter: CopiesByTimeMeter | None = None
        self._copies: CopiesByTime | None = None
        self._frechet: dict[str, float] | None = None
        path = path_by_name(config.objective.path)
        if parts is not None and config.evaluation.oracle:
            train_set = parts[0]
            self._turning_point = stages.predict_turning_point_with_interval(train_set.data, train_set.labels, path).t
            pairs = draw_pairs(train_set.data, config.evaluation.queries, config.seed, labels=train_set.labels)
            times = (np.arange(config.evaluation.times) + 0.5) / config.evaluation.times
            self._meter = LossByTimeMeter(Oracle(train_set.data, train_set.labels, path=path), pairs, times)
            if config.evaluation.copies:
                self._copies_meter = _copies_meter(config, parts, self._turning_point)
        self._field = jax.jit(lambda parameters, x, t, label: trainer.model(parameters)(x, t, label))
        self._sampler = jax.jit(self._sampled)
        self._follower = jax.jit(self._followed)

    def __call__(self, step: int, state: State) -> dict[str, float]:
        from flowjax.reporting.samples import sample_grid

        picture = sample_grid(self._samples(state, self._config.evaluation.grid), self._value_range, columns=10)
        _keep(picture, self._workdir, step)
        self._save(step, state)
        found: dict[str, float] = {}
        if self._meter is not None:
            self._last = self._meter(functools.partial(self._field, state.ema))
            found |= self._last.split(self._turning_point)
        if self._copies_meter is not None:
            self._copies = self._copies_meter(functools.partial(self._follower, state.ema))
            found |= self._copies.split(self._turning_point or 0.0)
        return found

    def _save(self, step: int, state: State, **known: Any) -> None:
        """The averaged model, for whoever samples from it: `flowjax.models.trained`."""
        normalization = self._records.normalization
        about = {
            "config": self._config.to_dict(),
            "dataset": self._records.name,
            "step": step,
            "path": self._config.objective.path,
            "value_range": self._records.value_range,  # None: these are no images
            "class_names": self._records.class_names,
            "normalization": {"mean": normalization.mean, "std": normalization.std, "multiplier": normalization.multiplier},
            **known,
        }
        save_trained(self._trainer.model(state.ema), self._workdir.live(FILE), plain(about))

    @property
    def _value_range(self) -> tuple[float, float]:
        if self._parts is not None and self._parts[0].value_range is not None:
            return self._parts[0].value_range
        return self._records.value_range or (-3.0, 3.0)

    def _sampled(self, parameters: Any, x_0: jax.Array, label: jax.Array | None) -> jax.Array:
        t = jnp.asarray(uniform_timesteps(self._config.evaluation.sampler_steps), jnp.float32)
        return self._followed(parameters, x_0, t, label)

    def _followed(self, parameters: Any, x: jax.Array, t: jax.Array, label: jax.Array | None) -> jax.Array:
        return sample(model_field(self._trainer.model(parameters), self._records.num_classes or 0), x, t, label, solver=HEUN)

    def _samples(self, state: State, count: int, label: np.ndarray | None = None) -> np.ndarray:
        """Samples of the averaged model; without labels every class in turn."""
        classes = self._records.num_classes
        label = draw_labels(count, classes) if label is None and classes is not None else label
        program = functools.partial(self._sampler, state.ema)
        return np.concatenate(list(in_batches(program, noise(count, self._records.shape, self._config.seed), label, min(count, 100))))

    def finish(self, state: State) -> dict[str, Any]:
        """The Fréchet distance, and what the summary holds of the rest."""
        self._frechet = self._distance(state)
        found: dict[str, Any] = {"turning_point": {"predicted": self._turning_point}}
        if self._last is not None:
            self._workdir.write_csv(
                "loss_by_t.csv", [dict(zip(("t", "cfm", "oracle"), row, strict=True)) for row in zip(*self._last, strict=True)]
            )
            found["loss_by_stage"] = self._last.split(self._turning_point)
        if self._copies is not None:
            self._workdir.write_csv("copies_by_t.csv", self._copies.rows())
            found["copies_by_t"] = self._copies.split(self._turning_point or 0.0) | {"mostly_from": self._copies.mostly_from()}
        if self._frechet is not None:
            self._save(int(state.step), state, frechet=self._frechet)
            found["frechet"] = self._frechet
            self.takeaway = (
                f"Samples of a {self._config.model.size} trained on {self._records.name} lie at a Fréchet distance of "
                f"{self._frechet['samples']:.3g} from held-out samples, {self._frechet['ratio']:.2f} times that of training samples."
            )
        return found

    def _distance(self, state: State) -> dict[str, float] | None:
        """Distances from the held-out samples: of the model's, and of the training ones."""
        wanted = self._config.evaluation
        train_set, heldout = self._parts or (None, None)
        if not wanted.frechet_samples or train_set is None or heldout is None or self._records.num_classes is None:
            return None
        frozen = train_classifier(self._config, self._records.load(), own_mesh(self._trainer.mesh))  # it has seen both halves alike
        features = functools.partial(features_of, frozen)
        count = wanted.frechet_samples
        assert heldout.labels is not None
        samples = features(self._samples(state, count, labels_in_proportion(heldout.labels, count)))
        real, seen = (features(part.data[random_rows(part.n, count, self._config.seed)]) for part in (heldout, train_set))
        found = {"samples": frechet_distance(samples, real), "train": frechet_distance(seen, real)}
        return found | {"ratio": found["samples"] / found["train"], "n": count}

    def sections(self, workdir: WorkDir) -> list[Section]:
        found = []
        if self._last is not None:
            from flowjax.reporting.samples import loss_by_t_figure

            figure = workdir.save_figure("loss_by_t", loss_by_t_figure(self._last, self._turning_point))
            text = "What the averaged model gets wrong, about the CFM target and about the oracle. They differ by what no model can know."
            found.append(Section("Loss by time", text, figure, alt="Error against t, two curves"))
        if self._copies is not None:
            from flowjax.reporting.samples import copies_by_t_figure

            figure = workdir.save_figure("copies_by_t", copies_by_t_figure(self._copies, self._turning_point))
            found.append(Section("Copies", _COPIES, figure, alt="Share of copies against the t from which the model is followed"))
        pictures = sorted(workdir.live("samples").glob("*.png"))
        if pictures:
            found.append(
                Section("Samples", f"After {int(pictures[-1].stem):,} steps; a column for each class.", pictures[-1], alt="Samples")
            )
        if self._frechet is not None:
            text = "Between features of a small classifier, from the held-out samples; the training samples are what could be hoped for."
            found.append(Section("Fréchet distance", text, table=[self._frechet]))
        return found


_COPIES = (
    "The share of ends that are copies, by the t from which the averaged model is followed, with 95 %. It starts from noised training "
    "samples, which is where following the oracle leads to, and ends at a copy if a training sample is at most a third as far as the next. "
    "The control: from noised held-out samples, copies of those. Where the first lies above the second, the model has memorised."
)


def _copies_meter(config: ConfigDict, parts: Parts, turning_point: float) -> CopiesByTimeMeter | None:
    """From noise, from the turning point, and from some t on each side of it; None: no two samples differ."""
    count, steps = config.evaluation.copies, config.evaluation.copies_steps
    if count < 2 or steps < 1:
        raise ValueError(f"evaluation.copies = {count}, copies_steps = {steps}: expected 0 (none), or at least 2, and at least 1")
    if any(one is not None and (one.data == one.data[:1]).all() for one in parts):
        return None
    times = np.unique([0, turning_point / 2, turning_point, *(turning_point + (1 - turning_point) * np.array([1, 2]) / 3)])
    return CopiesByTimeMeter(*parts, path_by_name(config.objective.path), times, num_queries=count, steps=steps, seed=config.seed)


class AutoencoderEvaluation(NoEvaluation):
    """Images above their reconstructions; the weights, where `encode_latents` finds them."""

    def __init__(self, config: ConfigDict, trainer: Trainer, parts: Parts, workdir: WorkDir):
        self._trainer, self._workdir = trainer, workdir
        self._shown = parts[1] or parts[0]
        self._count = config.evaluation.grid // 20 * 10
        self._program = jax.jit(self._reconstructed)

    def _reconstructed(self, parameters: Any, x: jax.Array) -> jax.Array:
        model = self._trainer.model(parameters)
        return model.decode(model.moments(x)[0])

    def __call__(self, step: int, state: State) -> dict[str, float]:
        x = self._shown.data[random_rows(self._shown.n, 1000, 0)].astype(np.float32)
        again = np.asarray(self._program(state.ema, jnp.asarray(x)))
        assert self._shown.value_range is not None
        low, high = self._shown.value_range
        error = float(np.mean((np.clip(again, low, high) - x) ** 2))
        rows = [part[i : i + 10] for i in range(0, self._count, 10) for part in (x, again)]
        from flowjax.reporting.samples import sample_grid

        _keep(sample_grid(np.concatenate(rows), (low, high), columns=10), self._workdir, step)
        self._psnr = 10 * np.log10((high - low) ** 2 / max(error, 1e-30))
        return {"psnr": self._psnr}

    def finish(self, state: State) -> dict[str, Any]:
        """Save the averaged weights."""
        autoencoder.save_autoencoder(self._trainer.model(state.ema), self._workdir.path(autoencoder.FILE))
        self.takeaway = f"Held-out images of {self._shown.name} are reconstructed at {self._psnr:.1f} dB."
        return {"psnr": self._psnr, "weights": autoencoder.FILE}

    def sections(self, workdir: WorkDir) -> list[Section]:
        pictures = sorted(workdir.live("samples").glob("*.png"))[-1:]
        return [Section("Reconstructions", "Held-out images, each row above what becomes of it.", p, alt="Images") for p in pictures]


class ClassifierEvaluation(NoEvaluation):
    """The share of held-out samples whose class the averaged model tells."""

    def __init__(self, trainer: Trainer, heldout: data.DataSet):
        self._heldout = heldout
        self._program = jax.jit(lambda parameters, x: trainer.model(parameters)(x).argmax(axis=-1))

    def __call__(self, step: int, state: State) -> dict[str, float]:
        told = np.concatenate([self._program(state.ema, part) for part in np.array_split(self._heldout.data, -(-self._heldout.n // 1024))])
        self._accuracy = float(np.mean(told == self._heldout.labels))
        return {"heldout_accuracy": self._accuracy}

    def finish(self, state: State) -> dict[str, Any]:
        self.takeaway = f"{100 * self._accuracy:.1f} % of the {self._heldout.n:,} held-out {self._heldout.name} are told right."
        return {"heldout_accuracy": self._accuracy}
