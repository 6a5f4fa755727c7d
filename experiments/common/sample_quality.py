"""How good samples are: distances and coverage, in the features of a classifier of the data, or of Inception."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common.evaluation import features_of, random_rows, train_classifier
from experiments.common.trained_models import own_data
from experiments.configs import train as presets
from flowjax.data import DataSet
from flowjax.data.formats.pixels import to_bytes
from flowjax.metrics.frechet import Extrapolated, Moments, frechet_distance, frechet_extrapolated
from flowjax.metrics.inception import InceptionFeatures, read_moments
from flowjax.metrics.precision_recall import precision_recall
from flowjax.models.flow import Flow
from flowjax.training.sharding import make_mesh


class Quality:
    """Measures samples against held-out data of the model's own (all of it, where nothing was held out), or against statistics.

    Everything that can be wrong is found when it is made.

    Args:
      block: `features`: classifier, or a file of Inception's weights; `reference`: an .npz with mu and sigma, "" for the model's data;
        `classifier_steps`: how long the classifier is trained.

    Raises:
      FileNotFoundError, ValueError: as what reads the files; a classifier where there are no labels.
    """

    def __init__(self, block: ConfigDict, flow: Flow, data_block: ConfigDict, seed: int):
        self._moments: Moments | None = read_moments(block.reference) if block.reference else None
        self._real: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.kind = "classifier" if block.features == "classifier" else "inception"
        if self.kind == "classifier" and self._moments is not None:
            raise ValueError("quality.reference: published statistics are of Inception's features; give its weights as quality.features")
        inception = None if self.kind == "classifier" else InceptionFeatures(block.features)
        if self._moments is None or self.kind == "classifier":
            training, heldout = own_data(flow, data_block)
            real = training if heldout is None else heldout
            self._range = real.value_range or (-1.0, 1.0)
            self._features = functools.partial(self._seen_by, inception) if inception else self._classifier(block, training, seed)
            self._real = self._features(real.data)
            self.labels = real.labels
        else:
            assert inception is not None
            self._range = tuple(flow.about.get("value_range") or (-1.0, 1.0))
            self._features = functools.partial(self._seen_by, inception)

    def _classifier(self, block: ConfigDict, training: DataSet, seed: int) -> Any:
        config = presets.get_config("classifier")
        config.seed, config.evaluation.classifier_steps = seed, block.classifier_steps
        return functools.partial(features_of, train_classifier(config, training, make_mesh(1, 1)))

    def _seen_by(self, inception: InceptionFeatures, x: np.ndarray) -> np.ndarray:
        return inception(to_bytes(x, self._range))

    def frechet(self, samples: np.ndarray) -> float:
        """The Fréchet distance alone."""
        return frechet_distance(self._features(samples), self._against)

    @property
    def _against(self) -> Moments | np.ndarray:
        against = self._real if self._moments is None else self._moments
        assert against is not None
        return against

    def __call__(self, samples: np.ndarray, seed: int) -> dict[str, Any]:
        """The numbers of a summary."""
        found = self._features(samples)
        result: dict[str, Any] = {"features": self.kind, "n": len(samples), "frechet": frechet_distance(found, self._against)}
        if len(samples) >= 64:
            further: Extrapolated = frechet_extrapolated(found, self._against, seed=seed)
            result["frechet_extrapolated"] = {"value": further.value, "low": further.low, "high": further.high}
        if self._real is not None and min(len(found), len(self._real)) > 3:
            count = min(len(found), len(self._real), 10_000)  # both depend on the sizes: take the same
            real = self._real[random_rows(len(self._real), count, seed)]
            result |= {name: part._asdict() for name, part in precision_recall(found[:count], real)._asdict().items()}
        return result
