"""The errors of trained flows by t, query by query, stored one by one."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from experiments.common.trained_models import CELLS, own_oracle, told_classes
from flowjax import data
from flowjax.analysis.sweep import draw_pairs
from flowjax.fields import Field
from flowjax.metrics.loss_by_t import ErrorsByTime, LossByTimeMeter
from flowjax.models.flow import Flow
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.result_store import ResultStore


class Errors:
    """Measures flows against the CFM target and the oracle of the training set, on queries that all of them share.

    Args:
      training: of the oracle, by class where the flow is told classes.
      queried: samples that are noised.
      like: a flow whose path and classes the others share.
    """

    def __init__(
        self,
        workdir: WorkDir,
        training: data.DataSet,
        queried: data.DataSet,
        like: Flow,
        times: Float[np.ndarray, " T"],
        num_queries: int,
        seed: int,
    ):
        self._cells, self._training, self._queried = ResultStore(workdir.live(CELLS)), training, queried
        self._times, self._num_queries, self._seed = times, num_queries, seed
        self._like, self._by_class = like, told_classes(like, training)
        self._depends_on = {
            "oracle of": training.provenance["sha256"],
            "queries of": queried.provenance["sha256"],
            "by class": self._by_class,
            "path": repr(like.path),
            "num_queries": num_queries,
            "times": times,
            "seed": seed,
        }

    @functools.cached_property
    def _meter(self) -> LossByTimeMeter:
        labels = self._queried.labels if self._by_class else None
        pairs = draw_pairs(self._queried.data, self._num_queries, self._seed, labels=labels)
        return LossByTimeMeter(own_oracle(self._like, self._training), pairs, self._times)

    def __call__(self, flow: Flow) -> ErrorsByTime:
        """The errors of one flow."""

        def measure() -> dict[str, Any]:
            return self._meter.each(functools.partial(_velocity, flow.field))._asdict()

        found = self._cells({**self._depends_on, "model": flow.digest}, measure)
        return ErrorsByTime(**{name: np.asarray(part) for name, part in found.items()})


@jax.jit
def _velocity(field: Field, x: Array, t: Array, label: Array | None) -> Array:
    return field(x, t[0], label)  # the meter asks for one time at once
