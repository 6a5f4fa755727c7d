"""From which t on following a field ends at copies."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.data import DataSet
from flowjax.fields import OracleField
from flowjax.metrics.copies_by_t import CopiesByTime, CopiesByTimeMeter
from flowjax.oracle import Oracle
from flowjax.path import RectifiedFlow
from flowjax.sampling import HEUN, sample

T = np.array([0.0, 0.5, 0.95])


@pytest.mark.slow
def test_a_field_that_memorised_ends_at_copies_of_its_own_samples_only_and_one_that_did_not_knows_no_difference() -> None:
    rows = np.random.default_rng(0).standard_normal((80, 5, 5, 1)).astype(np.float32)
    one, other = DataSet("training", rows[:40]), DataSet("unseen", rows[40:])
    meter = CopiesByTimeMeter(one, other, RectifiedFlow(), T, num_queries=16)

    def follow(field):
        return lambda x, edges, label: sample(field, x, jnp.asarray(edges), label, solver=HEUN)

    memorised = meter(follow(OracleField(Oracle(one.data))))
    assert memorised.copied["training"].all()
    assert not memorised.copied["unseen"].any()
    assert memorised.mostly_from() == 0
    both = meter(follow(OracleField(Oracle(rows))))
    assert both.copied["training"][-1].mean() > 0.8
    assert both.copied["unseen"][-1].mean() > 0.8
    assert both.split(0.5)["copies/from_noise/training"] < 0.9  # some end at samples of the other half


def test_most_ends_are_copies_from_the_first_t_that_no_later_one_contradicts() -> None:
    def found(*shares: float) -> float | None:
        return CopiesByTime(T, {"training": np.arange(10) < 10 * np.array(shares)[:, None]}).mostly_from()

    assert [found(0.8, 0.2, 0.9), found(0.2, 0.6, 0.9), found(0.9, 0.9, 0.1)] == [0.95, 0.5, None]


def test_a_set_of_equal_samples_is_refused() -> None:
    same = DataSet("same", np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="training samples: no two differ"):
        CopiesByTimeMeter(same, None, RectifiedFlow(), T)
