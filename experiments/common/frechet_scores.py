"""Scores of sampling settings: the Fréchet distance of each setting on each seed, stored one by one; and the advice that they test."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.sample_quality import Quality
from experiments.common.trained_models import CELLS, own_oracle, own_turning_point, told_classes
from flowjax import data, stages
from flowjax.fields import Field
from flowjax.models.flow import Flow
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.result_store import ResultStore
from flowjax.sampling import Solver, draw_labels, in_batches, labels_in_proportion, noise, sample
from flowjax.stages import Advice, TurningPoint

NEAR = 0.05
"""A setting that is at most this share worse than the best lands near it."""


class Scores:
    """The Fréchet distance of samples from held-out data, for each of `config.num_seeds` seeds: noise that all settings share.

    Everything that can be wrong with the configuration is found when it is made.

    Args:
      flow: whose data, classes and shape the samples have.
    """

    def __init__(self, config: ConfigDict, flow: Flow, workdir: WorkDir):
        check(config)
        self._config, self._flow = config, flow
        self._solver = Solver(config.solver)
        self._quality = Quality(config.quality, flow, config.data, config.seed)
        self._cells = ResultStore(workdir.live(CELLS))
        real = self._quality.labels
        self._label = None
        if flow.num_classes:
            self._label = (
                draw_labels(config.num_samples, flow.num_classes) if real is None else labels_in_proportion(real, config.num_samples)
            )
        shared = ("quality", "data", "num_samples", "solver", "seed")
        self._shared = {key: config.to_dict()[key] for key in shared} | {"reference": flow.digest}

    def __call__(self, setting: Mapping[str, Any], field: Field, edges: Float[np.ndarray, " T"]) -> Float[np.ndarray, " R"]:
        """The score on each seed.

        Args:
          setting: what it depends on besides the configuration; the models' digests among it.
          edges: the grid of steps, as `flowjax.sampling.sample` takes it.

        Raises:
          ValueError: samples that are not finite.
        """
        return np.array([self._score(setting, field, edges, seed) for seed in range(self._config.num_seeds)])

    def _score(self, setting: Mapping[str, Any], field: Field, edges: np.ndarray, seed: int) -> float:
        def compute() -> float:
            x_0 = noise(self._config.num_samples, self._flow.image_shape, self._config.seed + seed)
            grid = jnp.asarray(edges * self._flow.path.t_max, jnp.float32)
            program = lambda x, y: sample(field, x, grid, y, solver=self._solver)  # noqa: E731
            found = np.concatenate(list(in_batches(program, x_0, self._label, min(self._config.batch_size, len(x_0)))))
            if not np.isfinite(found).all():
                raise ValueError(f"samples at {dict(setting)} are NaN or infinite: leave this setting out")
            return self._quality.frechet(found)

        return float(self._cells({**self._shared, **setting, "edges": edges, "sampling seed": seed}, compute))


def check(config: ConfigDict) -> None:
    """What can be seen before a model is trained."""
    Solver(config.solver)
    app.check_at_least(config, num_seeds=3, num_samples=32)  # for intervals


def turn_and_advice(flow: Flow, training: data.DataSet, workdir: WorkDir, seed: int) -> tuple[TurningPoint, Advice]:
    """Where the data that a flow was trained on turn, for the classes that it is told, and what follows; measured once."""
    by_class = told_classes(flow, training)
    depends_on = {"turning point of": training.provenance["sha256"], "by class": by_class, "path": repr(flow.path), "seed": seed}
    turn = TurningPoint(
        **ResultStore(workdir.live(CELLS))(depends_on, lambda: dataclasses.asdict(own_turning_point(own_oracle(flow, training), seed)))
    )
    return turn, stages.advice(turn.measured, stages.covariance_spectrum(training.data), share=None, path=flow.path)
