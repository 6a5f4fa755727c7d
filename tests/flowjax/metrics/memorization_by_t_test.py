"""The advantage of training samples: none for what never saw them, all of it for their own oracle."""

import numpy as np
import pytest

from flowjax.analysis.statistics import Curve
from flowjax.metrics.memorization_by_t import advantage

RNG = np.random.default_rng(0)
T = (np.arange(10) + 0.5) / 10


def errors(scale: np.ndarray) -> np.ndarray:
    """`[T, 400]` squared errors with these means."""
    return scale[:, None] * RNG.chisquare(4, (len(scale), 400)) / 4


@pytest.mark.slow
def test_what_never_saw_the_samples_has_none() -> None:
    """However wrong it is: of 40 draws few intervals miss 0, overall and at each t."""
    missed = []
    for _ in range(40):
        found = advantage(errors(1 + T), errors(1 + T), T, 0.45)
        missed += [not part.low <= 0 <= part.high for part in (found.navigation, found.refinement, found.overall) if part is not None]
        missed += list((found.by_t.low > 0) | (found.by_t.high < 0))
    assert np.mean(missed) == pytest.approx(0.05, abs=0.03)


def test_where_it_begins_and_how_much_it_is() -> None:
    shrunk = np.where(T > 0.5, 0.5, 1.0)
    found = advantage(errors(shrunk * (1 + T)), errors(1 + T), T, 0.5)
    assert found.first_sure(T) == pytest.approx(0.55)
    assert found.refinement is not None and found.navigation is not None  # noqa: PT018  # one claim: both stages have times
    assert found.refinement.low <= 0.5 <= found.refinement.high
    assert found.navigation.low <= 0 <= found.navigation.high


def test_the_oracle_itself_has_all_of_it() -> None:
    found = advantage(np.zeros((10, 5)), errors(1 + T), T, None)
    np.testing.assert_array_equal(found.by_t.mean, 1)
    assert found.navigation is None
    assert found.overall == (1, 1, 1)
    assert found.first_sure(T) == T[0]
    assert found.sure(T) == [(T[0], T[-1])]
    low = np.array([0.1, 0.1, -0.1, 0.1, -0.1, 0, 0, 0, 0, -0.1])
    assert found._replace(by_t=Curve(low, low, low)).sure(T) == [(T[0], T[1]), (T[3], T[3])]


def test_errors_at_other_times_are_refused() -> None:
    with pytest.raises(ValueError, match=r"errors of shapes \(10, 400\) and \(9, 400\) at 10 times"):
        advantage(errors(T), errors(T[1:]), T, None)
