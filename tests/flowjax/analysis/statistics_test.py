"""Intervals of shares."""

import numpy as np

from flowjax.analysis.statistics import share


def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for truth in (0.02, 0.5):
        found = [share(rng.random(80) < truth) for _ in range(400)]
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92
    assert share(np.zeros(10, bool)).low == 0
    assert 0.2 < share(np.zeros(10, bool)).high < 0.4
