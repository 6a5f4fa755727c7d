"""Products with few queries are those of any library, whatever is left over of a tile."""

import numpy as np
import pytest

from kernels.posterior.cpu.few_kernels import few_scores, few_sums


@pytest.mark.parametrize(("n", "d", "b"), [(1, 3, 1), (4, 16, 4), (13, 1030, 6), (70, 2100, 12)])
def test_products_with_few_queries(n, d, b):
    """Rows and queries that do not fill a tile, columns that do not fill a block, and a part of the columns."""
    rng = np.random.default_rng(0)
    rows, directions, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, d), (b, d), (n, b)))
    scores, sums = np.full((n, b), np.nan, np.float32), np.full((b, d), np.nan, np.float32)
    few_scores(rows, directions, scores)
    np.testing.assert_allclose(scores, rows.astype(np.float64) @ directions.T, atol=1e-5 * d**0.5)
    few_sums(weights, rows, 1, d, sums)
    np.testing.assert_allclose(sums[:, 1:], (weights.T.astype(np.float64) @ rows)[:, 1:], atol=1e-5 * n**0.5)
    assert np.isnan(sums[:, 0]).all()
