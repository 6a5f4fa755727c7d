"""One step is one function, on however many devices and in however many parts."""

import jax
import numpy as np
import pytest

from flowjax.training.loop import Schedule
from flowjax.training.sharding import make_mesh, place_batch
from flowjax.training.step import Trainer, make_optimizer
from tests.flowjax.training.tiny_training import batches, trainer


def followed(one: Trainer, steps: int = 3) -> tuple[list[float], list[np.ndarray]]:
    """Losses of some steps, and the parameters after them."""
    state, program, losses = one.init(0), one.step(), []
    for step in range(steps):
        state, metrics = program(state, place_batch(batches()[step], one.mesh), None)
        losses.append(float(metrics["loss"]))
    return losses, [np.asarray(leaf) for leaf in jax.tree.leaves(state.parameters)]


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], list[np.ndarray]]:
    return followed(trainer())


@pytest.mark.long
def test_devices_and_parts_change_a_step_by_rounding_only(alone: tuple[list[float], list[np.ndarray]]) -> None:
    losses, parameters = followed(trainer(batch=2, fsdp=2, scan=True, accumulation=2))
    np.testing.assert_allclose(losses, alone[0], rtol=2e-6)
    # Adam divides by the root of the second moment: where a gradient is all rounding, so is its step. Hence the rate as a scale.
    off = max(np.abs(a - b).max() for a, b in zip(parameters, alone[1], strict=True))
    assert off < 0.1 * 1e-3


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: trainer(accumulation=3).check_batch(16), "batch_size"),
        (lambda: make_mesh(3, 4), "mesh.batch"),
        (lambda: make_optimizer(-1.0), "learning_rate"),
        (lambda: Schedule(0), "steps"),
        (lambda: Trainer(trainer().task, make_optimizer(1e-3), make_mesh(1, 1), ema_decay=1.0), "ema_decay"),
    ],
)
def test_numbers_that_cannot_be_are_refused(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
