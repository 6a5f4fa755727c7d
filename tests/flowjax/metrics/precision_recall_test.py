"""Precision and recall tell missing modes from bad samples."""

import numpy as np
import pytest

from flowjax.metrics.precision_recall import precision_recall


def test_precision_and_recall_tell_missing_modes_from_bad_samples() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((300, 4)), rng.standard_normal((300, 4)) + 20
    both = np.concatenate([left, right])
    same = precision_recall(both + rng.standard_normal(both.shape) * 0.1, both)
    assert same.precision.value > 0.95
    assert same.recall.value > 0.95
    dropped = precision_recall(left, both)
    assert dropped.precision.value > 0.95
    assert dropped.recall.value == pytest.approx(0.5, abs=0.05)
    assert dropped.recall.low < 0.5 < dropped.recall.high
    astray = precision_recall(np.concatenate([left, left + 100]), left)
    assert astray.precision.value == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda x: precision_recall(x[:3], x), "samples: 3 rows"),
        (lambda x: precision_recall(x, x[:, :2]), "the same"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(call, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call(np.random.default_rng(0).standard_normal((50, 3)))
