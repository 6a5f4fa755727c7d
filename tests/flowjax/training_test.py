"""One step is one function, on however many devices and in however many parts; what it is measured by is right."""

import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analysis.sweep import draw_pairs
from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.metrics.loss_by_t import LossByTimeMeter
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.oracle import Oracle
from flowjax.training.loop import Diverged, Observers, Schedule, train
from flowjax.training.metrics import MetricWriter, ProgressLine, read_metrics
from flowjax.training.sharding import make_mesh, place_batch
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import ClassifierTask, FlowTask

SHAPE = Architecture(image_shape=(8, 8, 1), patch=4, depth=2, width=24, heads=2, num_classes=10)


def trainer(batch: int = 1, fsdp: int = 1, accumulation: int = 1, scan: bool = False, target: str = "cfm", rate: float = 1e-3) -> Trainer:
    digits = records()
    task = FlowTask(SHAPE, Objective(target=target), digits.normalization, scan=scan)
    return Trainer(task, make_optimizer(rate, clip=1.0), make_mesh(batch, fsdp), accumulation=accumulation)


def batches(size: int = 16) -> Batches:
    return Batches(records(), size, seed=0, label_dropout=0.1)


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


@pytest.mark.slow
def test_devices_and_parts_change_a_step_by_rounding_only(alone: tuple[list[float], list[np.ndarray]]) -> None:
    losses, parameters = followed(trainer(batch=2, fsdp=2, scan=True, accumulation=2))
    np.testing.assert_allclose(losses, alone[0], rtol=2e-6)
    # Adam divides by the root of the second moment: where a gradient is all rounding, so is its step. Hence the rate as a scale.
    off = max(np.abs(a - b).max() for a, b in zip(parameters, alone[1], strict=True))
    assert off < 0.1 * 1e-3


@pytest.mark.slow
def test_shards_of_parameters_lie_on_different_devices() -> None:
    state = trainer(fsdp=4).init(0)
    weight = state.parameters["blocks"]["mlp"]["w12"]["weight"]
    leaf = jax.tree.leaves(weight)[0]
    assert leaf.addressable_shards[0].data.size == leaf.size / 4
    moments = [m for m in jax.tree.leaves(state.optimizer) if m.shape == leaf.shape]
    assert len(moments) == 2
    assert all(m.addressable_shards[0].data.size == m.size / 4 for m in moments)


@pytest.mark.slow
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


def test_nan_stops_at_its_step_with_the_seed_of_its_batch() -> None:
    with pytest.raises(Diverged, match=r"at step 1 \(batch 0 of seed 0\); there is no checkpoint"):
        train(trainer(), Batches(_broken(), 16, seed=0), Schedule(3), seed=0)


def _broken():
    """Data with an infinity that no loader has looked at."""
    digits = records()
    object.__setattr__(digits, "rows", np.full(digits.rows.shape, np.inf, np.float32))
    return digits


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


def test_metrics_of_a_run_that_was_cut_off_are_replaced_from_where_it_goes_on(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = MetricWriter(file, tmp_path / "board")
    for step in (5, 10, 15):
        first.write(step, {"loss": 1.0 / step, "bad": float("nan")})
    first.close()
    with open(file, "a") as broken:
        broken.write('{"step": 20, "lo')
    second = MetricWriter(file, tmp_path / "board", first_step=11)
    second.write(15, {"loss": 7.0})
    second.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert (
        lines
        == read_metrics(file)
        == [{"step": 5, "loss": 0.2, "bad": None}, {"step": 10, "loss": 0.1, "bad": None}, {"step": 15, "loss": 7.0}]
    )


def test_the_progress_line_tells_step_loss_rate_and_time_left() -> None:
    stream = io.StringIO()
    line = ProgressLine(1000, 0, stream)
    line.show(10, 0.5)
    line.show(1000, 0.25)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("step 10/1,000  loss 0.5")
    assert first.endswith("left")
    assert last.startswith("step 1,000/1,000  loss 0.25")
    assert "left" not in last


@pytest.mark.slow
def test_loss_by_t_of_the_oracle_itself_is_the_posterior_variance(digits: tuple[np.ndarray, np.ndarray]) -> None:
    oracle = Oracle(digits[0][:200])
    pairs = draw_pairs(digits[0][:200], 64, seed=0)
    meter = LossByTimeMeter(oracle, pairs, np.array([0.2, 0.35]))
    found = meter(jax.jit(lambda x, t, label: oracle(x, t, moments="velocity").velocity))
    np.testing.assert_allclose(found.oracle, 0, atol=1e-6)
    gap = [float(oracle(oracle.path.interpolate(pairs.x_0, pairs.x_1, jnp.float32(t)), t).cfm_gap.mean()) / 64 for t in (0.2, 0.35)]
    np.testing.assert_allclose(found.cfm, gap, rtol=0.25)  # its expectation, over 64 pairs
    assert found.split(0.3)["cfm/navigation"] == pytest.approx(found.cfm[0])
    assert set(found.split(None)) == {"cfm/all", "oracle/all"}
