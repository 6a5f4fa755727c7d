"""Sampling resumed from noised samples, by fields whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np

from flowjax.analysis.hybrid import Steps
from flowjax.analysis.resumed import Originals, baseline_of, faithfulness, resumed_samples
from flowjax.fields import OracleField
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.oracle import Oracle
from flowjax.path import RectifiedFlow
from flowjax.schedules import uniform_timesteps

RNG = np.random.default_rng(0)
TRAINING = RNG.standard_normal((40, 6)).astype(np.float32) * 2
HELDOUT = RNG.standard_normal((24, 6)).astype(np.float32) * 2
STEPS = Steps(uniform_timesteps(10), np.array([0.0, 0.9, 1.0]))


def resumed(field, x_1: np.ndarray) -> tuple[np.ndarray, Originals]:  # type: ignore[no-untyped-def]
    originals = Originals(x_1, RNG.standard_normal(x_1.shape).astype(np.float32))
    return resumed_samples(field, RectifiedFlow(), originals, STEPS, batch_size=16), originals


def test_a_field_that_leads_to_the_original_gives_it_back_from_every_t() -> None:
    away = RNG.standard_normal(HELDOUT.shape).astype(np.float32)
    originals = Originals(HELDOUT, away)
    # Along x_t = t x_1 + (1 - t) x_0 the velocity x_1 - x_0 is constant; a field cannot know the pair, so it is told by its rows.
    straight = jax.tree_util.Partial(lambda v, x, t, label: v, jnp.asarray(HELDOUT - away))
    found = resumed_samples(straight, RectifiedFlow(), originals, STEPS)
    np.testing.assert_allclose(found, np.broadcast_to(HELDOUT, found.shape), atol=1e-5)
    look = NeighbourSearch(Rows.of(TRAINING))
    told = faithfulness(found, HELDOUT, look, baseline_of(look, HELDOUT).unit)
    assert told.kept.all()
    assert told.own.max() < 1e-4
    np.testing.assert_allclose(told.other.mean(), 1, rtol=1e-4)  # as far from training as held-out data are


def test_the_oracle_of_the_training_set_is_faithful_to_training_samples_and_to_no_others() -> None:
    oracle, look = OracleField(Oracle(TRAINING)), NeighbourSearch(Rows.of(TRAINING))
    unit = baseline_of(look, HELDOUT).unit
    samples, originals = resumed(oracle, HELDOUT)
    unseen = faithfulness(samples, originals.x_1, look, unit)
    assert unseen.copies[:-1].all()  # it ends in the training set from every t but 1, at which nothing is left to do
    assert not unseen.kept[:-1].any()
    assert unseen.kept[-1].all()
    samples, originals = resumed(oracle, TRAINING)
    seen = faithfulness(samples, originals.x_1, look, unit, np.arange(len(TRAINING)))
    assert seen.kept[1].mean() > 0.9  # late, it ends where it came from
    assert seen.kept[0].mean() < 0.3  # from noise alone it cannot know
    assert [part.value for part in seen.shares()] == [float(row.mean()) for row in seen.kept]
