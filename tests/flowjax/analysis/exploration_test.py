"""The samples that carry the weight are those of the oracle, and the queries to look at are of the classes that were asked for."""

import numpy as np
import pytest

from flowjax.analysis.exploration import explore, heaviest_samples, shown_pairs
from flowjax.fields import OracleField
from flowjax.oracle import Oracle
from flowjax.path import Cosine, RectifiedFlow

T = np.array([0.05, 0.3, 0.6, 0.9, 0.98], np.float32)


@pytest.mark.parametrize("by_class", [False, True])
def test_the_heaviest_samples_have_the_oracles_weights(digits: tuple[np.ndarray, np.ndarray], by_class: bool) -> None:
    data, labels = digits[0][:300], digits[1][:300]
    counts = np.where(np.arange(300) % 7 == 0, 3.0, 1.0)
    pairs, _ = shown_pairs(data, 6, 1, labels=labels, condition=by_class)
    for path in (RectifiedFlow(), Cosine()):
        oracle = Oracle(data, labels, path=path, counts=counts)
        found = explore(oracle, pairs, T, 300)
        out = oracle.along_path(pairs.x_0, pairs.x_1, T, pairs.labels, gap=False)
        np.testing.assert_allclose(found.heaviest.weight[..., 0], out.top1_weight, rtol=1e-4)
        assert (found.heaviest.sample[..., 0] == np.asarray(out.top1_index)).mean() == 1
        np.testing.assert_allclose(found.heaviest.weight.sum(-1), 1, rtol=1e-9)
        np.testing.assert_allclose(1 / (found.heaviest.weight**2).sum(-1), found.effective_samples, rtol=1e-3)
        assert (np.diff(found.heaviest.weight, axis=-1) <= 0).all()
        mean = np.einsum("tqk,tqk...->tq...", found.heaviest.weight, data[found.heaviest.sample])
        if path == RectifiedFlow():
            np.testing.assert_allclose(mean, found.one_step["oracle"], atol=1e-4)


def test_equal_weights_go_by_number_and_a_small_class_leaves_places_empty() -> None:
    data = np.arange(8, dtype=np.float32)[:, None]
    labels = np.array([0, 0, 1, 1, 1, 1, 1, 1], np.int32)
    pairs, rows = shown_pairs(data, 2, 0, labels=labels)
    found = heaviest_samples(data, pairs, np.zeros(1, np.float32), 4, labels=labels, path=RectifiedFlow())
    assert labels[rows].tolist() == [0, 1]
    np.testing.assert_array_equal(found.sample[0], [[0, 1, 0, 0], [2, 3, 4, 5]])
    np.testing.assert_allclose(found.weight[0], [[0.5, 0.5, 0, 0], [1 / 6] * 4], rtol=1e-12)


@pytest.mark.slow
def test_a_model_is_stepped_along_too() -> None:
    data = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    pairs, _ = shown_pairs(data, 2, 0)
    oracle = Oracle(data)
    found = explore(oracle, pairs, T, 2, OracleField(oracle))
    np.testing.assert_allclose(found.one_step["model"], found.one_step["oracle"], atol=1e-5)
    alone = explore(oracle, pairs, T, 2)
    assert list(alone.one_step) == ["oracle"]


def test_queries_are_of_the_classes_asked_for_by_turns() -> None:
    data, labels = np.arange(40, dtype=np.float32)[:, None], np.repeat(np.arange(4), 10).astype(np.int32)
    _, rows = shown_pairs(data, 6, 0, labels=labels, classes=(3, 1))
    assert labels[rows].tolist() == [1, 1, 1, 3, 3, 3]
    assert len(set(rows.tolist())) == 6
    pairs, rows = shown_pairs(data, 3, 0, labels=labels, condition=False)
    assert len(set(labels[rows].tolist())) == 3
    assert pairs.labels is None
    with pytest.raises(ValueError, match="no samples of class 9"):
        shown_pairs(data, 3, 0, labels=labels, classes=(9,))
    with pytest.raises(ValueError, match="no labels"):
        shown_pairs(data, 3, 0, classes=(1,))
    with pytest.raises(ValueError, match="num_shown = 0"):
        shown_pairs(data, 0, 0)
