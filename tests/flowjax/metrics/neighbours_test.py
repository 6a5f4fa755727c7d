"""The exact nearest neighbours: those of float64 differences, wherever the data lie and in whatever parts they are read."""

import numpy as np
import pytest

from flowjax.metrics import neighbours
from flowjax.metrics.neighbours import NeighbourSearch, Rows


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("least", [0.05, 2.0])
def test_the_neighbours_are_those_of_exact_differences(least: float, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bounds of a few directions; and of data that are spread over all of them, by products of whole rows."""
    rng = np.random.default_rng(0)
    training = (rng.standard_normal((700, 90)) * np.linspace(2, least, 90) + offset).astype(np.float32)
    training[300] = training[5]  # equal distances: in the order of rows
    queries = np.concatenate([training[:8] + np.float32(1e-3), training[600:] * np.float32(0.9) + np.float32(0.1 * offset), training[4:7]])
    monkeypatch.setattr(neighbours, "SEEDS", 40)
    monkeypatch.setattr(neighbours, "_CHUNK_BYTES", 4 * 90 * 130)  # parts of 130 rows
    found = NeighbourSearch(Rows.of(training))(queries, 5)
    exact = np.sqrt(((queries[:, None].astype(np.float64) - training[None].astype(np.float64)) ** 2).sum(2))
    order = np.argsort(exact, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.row, order)
    np.testing.assert_allclose(found.distance, np.take_along_axis(exact, order, 1), rtol=1e-12)


def test_a_sample_does_not_count_among_its_own_neighbours_and_few_samples_leave_places_empty() -> None:
    training = np.array([[0.0, 0], [1, 0], [1, 0], [5, 5]], np.float32)
    found = NeighbourSearch(Rows.of(training))(training, 4, own=np.arange(4))
    np.testing.assert_array_equal(found.row[:, :3], [[1, 2, 3], [2, 0, 3], [1, 0, 3], [1, 2, 0]])
    assert (found.row[:, 3] == -1).all()
    assert np.isinf(found.distance[:, 3]).all()
    assert found.distance[1, 0] == 0


def test_the_cost_grows_with_the_queries_and_the_training_set() -> None:
    rng = np.random.default_rng(0)
    training, queries = rng.standard_normal((2, 4096, 64)).astype(np.float32)
    few, many = NeighbourSearch(Rows.of(training[:1024])).cost(queries[:64], 4), NeighbourSearch(Rows.of(training)).cost(queries, 4)
    assert many.seconds > 4 * few.seconds > 0
    assert many.bytes > few.bytes


@pytest.mark.parametrize("queries", [np.zeros((2, 3), np.float32), np.full((2, 2), np.nan, np.float32)])
def test_queries_that_cannot_be_compared_are_refused(queries: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite values, D = 2 as in training"):
        NeighbourSearch(Rows.of(np.eye(2, dtype=np.float32)))(queries, 1)
