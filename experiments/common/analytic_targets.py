"""Analytic fields by their names in a configuration, and a model's distances from them, stored model by model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.common.trained_models import CELLS, own_oracle, told_classes
from flowjax import data
from flowjax.analysis.analytic_comparison import ORACLE, Denoiser, Distances, denoised_by, distances, predictions, queries_at
from flowjax.analysis.sweep import Pairs, draw_pairs
from flowjax.analytic import gaussian, patch, pca_local, smoothed
from flowjax.fields import Field
from flowjax.models.flow import Flow
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.result_store import ResultStore

KINDS: dict[str, Callable[..., Any]] = {
    "gaussian": lambda x, y, path: gaussian(x, y, path),
    "smoothed": lambda x, y, path, noise: smoothed(x, y, path, noise=float(noise)),
    "patch": lambda x, y, path, size: patch(x, y, path, size=int(size)),
    "anywhere": lambda x, y, path, size: patch(x, y, path, size=int(size), anywhere=True),
    "pca_local": lambda x, y, path, threshold: pca_local(x, y, path, threshold=float(threshold)),
}
"""Kind → field of (data, labels, path), and of a number where the kind has one: `patch=5`."""


def checked_fields(names: tuple[str, ...]) -> list[str]:
    """Names of fields, the oracle first whether it is named or not.

    Raises:
      ValueError: a kind that there is not, or a number missing or too many; fewer than one field beside the oracle.
    """
    others = [name for name in dict.fromkeys(names) if name != ORACLE]
    for name in others:
        kind, equals, number = name.partition("=")
        takes = KINDS.get(kind) is not None and kind != "gaussian"
        if kind not in KINDS or bool(equals) != takes or (takes and not number.replace(".", "", 1).isdigit()):
            raise ValueError(f"fields: {name!r}: expected gaussian, smoothed=NOISE, patch=SIZE, anywhere=SIZE or pca_local=THRESHOLD")
    if not others:
        raise ValueError(f"fields = {names}: expected at least one beside the oracle")
    return [ORACLE, *others]


def denoiser_of(name: str, training: data.DataSet, flow: Flow) -> Denoiser:
    """The prediction of the data by a field of the training set, by class where the flow is told classes."""
    if name == ORACLE:
        oracle = own_oracle(flow, training)
        return lambda x, t, label: oracle(x, t, label).denoised
    kind, _, number = name.partition("=")
    values, labels = training.data.astype(np.float32, copy=False), training.labels if told_classes(flow, training) else None
    denoised: Denoiser = KINDS[kind](values, labels, flow.path, *([number] if number else [])).denoised
    return denoised


@jax.jit
def _velocity(field: Field, x: Array, t: Array, label: Array | None) -> Array:
    return field(x, t, label)


def model_denoiser(flow: Flow) -> Denoiser:
    """The one-step prediction of a model."""
    return denoised_by(functools.partial(_velocity, flow.field), flow.path)


@dataclasses.dataclass
class Targets:
    """Predictions of the fields of one training set at the same queries, made once, and distances of models from them.

    Attributes:
      queried: samples that are noised.
      like: a flow whose path and classes the others share.
    """

    workdir: WorkDir
    fields: list[str]
    training: data.DataSet
    queried: data.DataSet
    like: Flow
    times: Float[np.ndarray, " T"]
    num_queries: int
    seed: int
    progress: Callable[[Any], Any] = iter

    @functools.cached_property
    def pairs(self) -> Pairs:
        labels = self.queried.labels if told_classes(self.like, self.training) else None
        return draw_pairs(self.queried.data, self.num_queries, self.seed, labels=labels)

    @functools.cached_property
    def made(self) -> dict[str, np.ndarray]:
        """`predictions` of each field."""
        path = self.like.path
        return {
            name: predictions(denoiser_of(name, self.training, self.like), self.pairs, path, self.times)
            for name in self.progress(self.fields)
        }

    def __call__(self, flow: Flow) -> Distances:
        """Of one model."""
        depends_on = {
            "fields": self.fields,
            "training": self.training.provenance,
            "queries of": self.queried.provenance,
            "by class": told_classes(self.like, self.training),
            "path": repr(self.like.path),
            "num_queries": self.num_queries,
            "times": self.times,
            "seed": self.seed,
            "model": flow.digest,
        }

        def measure() -> dict[str, np.ndarray]:
            mean = self.training.data.mean(0, dtype=np.float64)
            found = distances(model_denoiser(flow), self.made, self.pairs, flow.path, self.times, mean)
            return {"spread": found.spread, "motion": found.motion, **{f"field {name}": part for name, part in found.fields.items()}}

        kept = ResultStore(self.workdir.live(CELLS) / "distances", arrays=True)(depends_on, measure)
        return Distances({name: np.asarray(kept[f"field {name}"]) for name in self.fields}, kept["spread"], kept["motion"])

    def shown(self, flow: Flow, query: int, times: Float[np.ndarray, " K"]) -> dict[str, np.ndarray]:
        """Pictures `[K, *shape]` of one query at some of the times: x_t, and what the model and each field make of it."""
        path, index = flow.path, np.searchsorted(self.times, times)
        some = jax.tree.map(lambda leaf: leaf[query : query + 1], self.pairs)
        rows = {"$x_t$": np.stack([np.asarray(queries_at(some, path, t))[0] for t in times])}
        rows["the model"] = predictions(model_denoiser(flow), some, path, times)[:, 0]
        return rows | {name: self.made[name][index, query] for name in self.fields}
