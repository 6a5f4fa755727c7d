"""Products of samples with queries: right whatever is left over of a tile, and however many samples are added up."""

import numpy as np
import pytest

from kernels.posterior.cpu.numba_kernels import add_rows
from kernels.posterior.cpu.products import scores_of, weighted_sums
from kernels.posterior.cpu.tuning import UNIT

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "d", "b"), [(1, 3, 1), (4, 16, 4), (13, 1030, 6), (70, 2100, 12), (70, 300, 13)])
def test_products_are_those_of_float64(n, d, b):
    """Rows and queries that do not fill a tile, columns that do not fill a block, and a part of the columns."""
    rows, directions, weights = (RNG.standard_normal(shape).astype(np.float32) for shape in ((n, d), (b, d), (n, b)))
    scores, sums = np.full((n, b), np.nan, np.float32), np.full((b, d), np.nan, np.float32)
    scores_of(rows, directions, scores)
    np.testing.assert_allclose(scores, rows.astype(np.float64) @ directions.T, atol=1e-5 * d**0.5)
    weighted_sums(weights, rows, 1, d, sums)
    np.testing.assert_allclose(sums[:, 1:], (weights.T.astype(np.float64) @ rows)[:, 1:], atol=1e-5 * n**0.5)
    assert np.isnan(sums[:, 0]).all()


@pytest.mark.parametrize(("n", "d", "b"), [(20000, 2, 1), (20000, 2, 12), (20000, 2, 20), (5000, 48, 128)])
def test_sums_do_not_lose_more_with_more_samples(n, d, b):
    """Added up one by one in float32, twenty thousand numbers of one sign lose some forty units in the last place."""
    weights, rows = RNG.exponential(size=(n, b)).astype(np.float32), RNG.uniform(1, 2, (n, d)).astype(np.float32)
    sums, true = np.empty((b, d), np.float32), weights.T.astype(np.float64) @ rows
    weighted_sums(weights, rows, 0, d, sums)
    assert (np.abs(sums - true) <= 8 * UNIT * true).all()


def test_many_small_weights_add_up():
    """Each of them weighs less than the last place of their sum."""
    weights = np.where(np.arange(40_000)[:, None] < 400, 1, 1e-6).astype(np.float32)
    rows, sums = np.full((40_000, 3), 250, np.float32), np.zeros((1, 3))
    add_rows(weights, rows, 0, 1, sums)
    np.testing.assert_allclose(sums, 250 * (400 + 0.0396), rtol=1e-7)
