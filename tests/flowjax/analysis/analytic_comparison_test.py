"""What fields explain of a model, where the model is one of them, or lies between two."""

import jax
import numpy as np
import pytest

from flowjax.analysis.analytic_comparison import denoised_by, distances, explained, predictions, stage_edges
from flowjax.analysis.sweep import draw_pairs
from flowjax.analytic import gaussian
from flowjax.fields import OracleField
from flowjax.oracle import Oracle
from flowjax.path import Cosine, RectifiedFlow

DATA = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
T = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
PATH = RectifiedFlow()
PAIRS = draw_pairs(np.random.default_rng(1).standard_normal((64, 12)).astype(np.float32), 40, 0)
ORACLE = Oracle(DATA)
FIELDS = {
    "oracle": predictions(lambda x, t, label: ORACLE(x, t, label).denoised, PAIRS, PATH, T),
    "gaussian": predictions(gaussian(DATA).denoised, PAIRS, PATH, T),
}
EDGES = stage_edges(DATA, None, PATH)


def test_the_prediction_of_a_velocity_field_is_the_posterior_mean_on_every_path() -> None:
    for path in (RectifiedFlow(), Cosine()):
        oracle = Oracle(DATA, path=path)
        by_velocity = predictions(denoised_by(OracleField(oracle), path), PAIRS, path, T)
        np.testing.assert_allclose(by_velocity, predictions(lambda x, t, y, of=oracle: of(x, t, y).denoised, PAIRS, path, T), atol=2e-5)


def test_a_field_explains_itself_and_the_mean_of_the_data_explains_nothing() -> None:
    found = distances(denoised_by(OracleField(ORACLE), PATH), FIELDS, PAIRS, PATH, T, DATA.mean(0))
    told = explained([found], T, EDGES)
    np.testing.assert_allclose(told.share["oracle"].mean, 1, atol=1e-6)
    np.testing.assert_allclose(told.relative_error["oracle"].mean, 0, atol=1e-3)
    assert told.oracle_until is None
    assert {stage: best[0] for stage, best in told.best.items()} == dict.fromkeys(told.by_stage, "oracle")
    assert told.sure("refinement")
    mean = {"oracle": FIELDS["oracle"], "mean": np.broadcast_to(DATA.mean(0), FIELDS["oracle"].shape)}
    told = explained([distances(denoised_by(OracleField(ORACLE), PATH), mean, PAIRS, PATH, T, DATA.mean(0))], T, EDGES)
    np.testing.assert_allclose(told.share["mean"].mean, 0, atol=1e-6)


def test_where_a_model_leaves_the_oracle_is_found_with_an_interval_over_queries_and_seeds() -> None:
    """A model that is the oracle up to t = 0.4 and the Gaussian from there on."""
    linear = gaussian(DATA).denoised

    def model(x: jax.Array, t: jax.Array, label: None) -> jax.Array:
        return ORACLE(x, t, label).denoised if float(t) < 0.4 else linear(x, t, label)

    found = distances(model, FIELDS, PAIRS, PATH, T, DATA.mean(0))
    told = explained([found, found], T, EDGES)
    assert told.oracle_until is not None
    assert 0.3 < told.oracle_until.low <= told.oracle_until.value <= told.oracle_until.high <= 0.5
    assert told.best["refinement"][0] == "gaussian"
    assert told.ahead["refinement"][0] == "gaussian"
    with pytest.raises(ValueError, match="expected a model, and oracle and others"):
        explained([], T, EDGES)


def test_stages_lie_about_the_turning_point() -> None:
    low, high = EDGES
    assert 0 < low < high < 1
    weights = [float(np.mean(ORACLE(PATH.interpolate(p.x_0, p.x_1, t), t).top1_weight)) for t in EDGES for p in [draw_pairs(DATA, 512, 3)]]
    np.testing.assert_allclose(weights, [0.1, 0.9], atol=0.06)
