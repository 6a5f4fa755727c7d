"""The training loop: one for all tasks; NaN stops it."""

import numpy as np
import pytest

from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.training.loop import Diverged, Observers, Schedule, train
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import ClassifierTask
from tests.flowjax.training.tiny_training import batches, trainer


@pytest.mark.long
def test_the_oracle_of_each_batch_is_a_target_too() -> None:
    found = train(trainer(target="minibatch"), batches(), Schedule(3), seed=1)
    assert np.isfinite(found.final_loss)
    assert int(found.state.step) == 3
    assert found.compile_seconds > 0


@pytest.mark.slow
def test_a_classifier_learns_by_the_same_loop() -> None:
    digits = records()
    task = ClassifierTask((8, 8, 1), 10, digits.normalization, width=8)
    seen = []
    one = Trainer(task, make_optimizer(3e-3, warmup=5), make_mesh(1, 1), ema_decay=0.9)
    observers = Observers(evaluate=lambda step, state: seen.append(step) or {})
    trained = train(one, Batches(digits, 64, seed=0), Schedule(120), seed=0, observers=observers)
    assert trained.final_loss < 0.3
    assert seen == [120]


@pytest.mark.long
def test_nan_stops_at_its_step_with_the_seed_of_its_batch() -> None:
    with pytest.raises(Diverged, match=r"at step 1 \(batch 0 of seed 0\); there is no checkpoint"):
        train(trainer(), Batches(_broken(), 16, seed=0), Schedule(3), seed=0)


def _broken():
    """Data with an infinity that no loader has looked at."""
    digits = records()
    object.__setattr__(digits, "rows", np.full(digits.rows.shape, np.inf, np.float32))
    return digits
