"""Sampling: solvers, trajectories, likelihood; the oracle's own samples are the training set."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from flowjax.analysis.hybrid import Steps, hybrid_samples
from flowjax.fields import OracleField, convert_interval, guided, model_field, staged
from flowjax.oracle import Oracle
from flowjax.path import RectifiedFlow
from flowjax.sampling import Solver, draw_labels, in_batches, labels_in_proportion, log_likelihood, noise, sample, states, trajectory
from flowjax.schedules import shift, uniform_timesteps
from kernels.benchmark.runner import load
from tests import float64_oracle
from tests.flowjax.growth import ONE, TWO, grid, small_model, solve_by_hand


@pytest.mark.parametrize("solver", ["euler", "heun", "midpoint"])
def test_a_solver_steps_as_its_name_says(solver: str) -> None:
    edges = shift(uniform_timesteps(7), 0.6)
    found = sample(ONE, jnp.ones((1, 1)), jnp.asarray(edges, jnp.float32), solver=Solver(solver))
    assert float(found[0, 0]) == pytest.approx(solve_by_hand(lambda t: 1, edges, solver), rel=1e-6)


def test_the_adaptive_solver_keeps_its_tolerance_and_the_grid_its_ends() -> None:
    edges = jnp.asarray([0, 0.5, 0.9, 0.90001], jnp.float32)
    found = sample(ONE, jnp.ones((1, 1)), edges, solver=Solver("dopri5", 1e-6))
    assert float(found[0, 0]) == pytest.approx(np.exp(np.sin(2.7) / 3), abs=1e-5)


@pytest.mark.slow
def test_n_edges_are_n_minus_one_evaluations_of_euler_and_the_last_edge_is_never_seen() -> None:
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Counting:
        weight: Any

        def __call__(self, x: jax.Array, t: jax.Array, label: Any) -> jax.Array:
            jax.debug.callback(lambda time: seen.append(float(time)), t)
            return self.weight * x

    for solver in ("euler", "heun", "midpoint", "dopri5"):
        seen: list[float] = []
        sample(Counting(jnp.float32(0)), jnp.ones((1, 1)), grid(5), solver=Solver(solver)).block_until_ready()
        jax.effects_barrier()
        assert max(seen) < 1
        if solver == "euler":
            np.testing.assert_allclose(sorted(seen), [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)


@pytest.mark.slow
def test_a_trajectory_passes_where_sampling_does() -> None:
    x_0, label = jnp.ones((3, 2)), jnp.arange(3, dtype=jnp.int32)
    edges = np.float32(shift(uniform_timesteps(8), 0.5))
    found = trajectory(ONE, x_0, jnp.asarray(edges), label)
    # Two programs, each of which rounds the slope, its product and the sum in each of 8 steps.
    np.testing.assert_allclose(found.x[-1], sample(ONE, x_0, jnp.asarray(edges), label), rtol=2 * 8 * 3 * 2.0**-24)
    np.testing.assert_array_equal(found.x[0], x_0)
    for i, t in enumerate(edges[:-1]):
        slope = (1 + np.arange(3)[:, None]) * np.cos(3 * t) * np.asarray(found.x[i])
        np.testing.assert_allclose(found.one_step[i], found.x[i] + (1 - t) * slope, rtol=1e-5)
        np.testing.assert_allclose(found.x[i + 1], found.x[i] + (edges[i + 1] - t) * slope, rtol=1e-5)
    np.testing.assert_array_equal(found.one_step[-1], found.x[-1])


def test_edges_scales_and_intervals_are_set_without_compiling_again() -> None:
    x_0, label = jnp.ones((2, 2)), jnp.zeros(2, jnp.int32)
    sample(guided(staged([ONE, TWO], [0.1]), 2.0, (0.1, 0.2)), x_0, grid(4), label)
    before = sample.__wrapped__._cache_size()
    sample(guided(staged([ONE, TWO], [0.7]), 3.0, (0.5, 0.6)), x_0, grid(4), label)
    assert sample.__wrapped__._cache_size() == before


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: guided(ONE, float("nan")), "scale = nan"),
        (lambda: guided(ONE, 2.0, (0.5, 0.5)), "interval"),
        (lambda: guided(ONE, 2.0, (0.6, 0.1)), "interval"),
        (lambda: guided(ONE, 2.0, channels=0), "channels = 0"),
        (lambda: staged([ONE, TWO], [1.5]), "edges"),
        (lambda: staged([ONE, TWO], []), "expected 1"),
        (lambda: staged([ONE, TWO, ONE], [0.5, 0.2]), "edges"),
        (lambda: Solver("rk45"), "expected one of euler"),
        (lambda: Solver("dopri5", 0.0), "tolerance"),
        (lambda: guided(ONE, 2.0)(jnp.ones((1, 1)), jnp.float32(0.5), None), "labels"),
        (lambda: draw_labels(4, 2, "sorted"), "equal or random"),
        (lambda: list(in_batches(lambda x, y: x, np.ones((4, 1)), None, 0)), "batch_size = 0"),
        (lambda: log_likelihood(ONE, jnp.ones((1, 1)), grid(4), num_probes=-1), "num_probes"),
        (lambda: convert_interval((1.0, 2.0), "snr", "t", RectifiedFlow()), "coordinate"),
        (lambda: convert_interval((2.0, 1.0), "sigma", "t", RectifiedFlow()), "lower end first"),
        (lambda: convert_interval((0.5, 1.5), "t", "sigma", RectifiedFlow()), "times in"),
        (lambda: convert_interval((-1.0, 1.0), "sigma", "t", RectifiedFlow()), "noise of 0 or more"),
        (lambda: log_likelihood(ONE, jnp.ones((1, 1)), np.array([0.5, 0.9])), "t begins at 0.5"),
        (lambda: log_likelihood(OracleField(Oracle(np.ones((2, 1)))), jnp.ones((1, 1)), grid(4)), "t ends at 1, where an oracle"),
    ],
)
def test_wrong_settings_are_refused_by_name(make: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()


NO_GRIDS = {
    "equal": ([0.0, 0.5, 0.5, 1.0], "entry 2 is 0.5, and the one before it 0.5"),
    "falling": ([0.0, 0.5, 0.25, 1.0], "entry 2 is 0.25"),
    "NaN": ([0.0, float("nan"), 1.0], "entry 1 is nan"),
    "negative": ([-0.5, 0.5], "entry 0 is -0.5"),
    "beyond data": ([0.0, 1.5], "entry 1 is 1.5"),
    "infinite": ([0.0, float("inf")], "entry 1 is inf"),
    "equal in float32": ([0.0, 0.5, 0.5 + 1e-9, 1.0], "entry 2"),
    "one edge": ([0.0], "at least 2"),
    "none": ([], "at least 2"),
    "a number": (0.5, r"of shape \(\)"),
    "a table": ([[0.0, 1.0]], r"of shape \(1, 2\)"),
}
ON_A_GRID = {
    "sample": lambda t: sample(ONE, jnp.ones((1, 1)), t),
    "states": lambda t: states(ONE, jnp.ones((1, 1)), t),
    "trajectory": lambda t: trajectory(ONE, jnp.ones((1, 1)), t, solver=Solver("dopri5")),
    "log_likelihood": lambda t: log_likelihood(ONE, jnp.ones((1, 1)), t),
    "hybrid_samples": lambda t: hybrid_samples(ONE, TWO, np.ones((1, 1), np.float32), Steps(t, np.array([0.0]))),
}


@pytest.mark.parametrize("program", ON_A_GRID)
@pytest.mark.parametrize("kind", NO_GRIDS)
def test_an_invalid_grid_ends_in_one_line(program: str, kind: str) -> None:
    t, named = NO_GRIDS[kind]
    with pytest.raises(ValueError, match=named) as told:
        ON_A_GRID[program](np.asarray(t))
    assert str(told.value).startswith("t = ")
    assert "\n" not in str(told.value)


def test_a_traced_grid_is_sampled_on_and_its_length_is_known() -> None:
    traced = jax.jit(lambda t: sample(ONE, jnp.ones((1, 1)), t))
    np.testing.assert_allclose(traced(grid(4)), sample(ONE, jnp.ones((1, 1)), grid(4)), rtol=1e-6)
    with pytest.raises(ValueError, match="T >= 2"):
        traced(jnp.zeros(1))


@pytest.mark.slow
def test_the_likelihood_of_an_oracles_flow_is_its_own_density(digits: tuple[np.ndarray, np.ndarray]) -> None:
    oracle = Oracle(digits[0][:50], precision="high")  # a small program
    edges = jnp.asarray(np.linspace(0, 0.5, 65), jnp.float32)
    x = oracle.path.interpolate(jnp.asarray(noise(8, (8, 8, 1), 0)), jnp.asarray(digits[0][:8]), jnp.float32(0.5))
    found = log_likelihood(OracleField(oracle), x, edges)
    np.testing.assert_allclose(found, oracle(x, 0.5).log_density, rtol=2e-3)


def test_labels_in_proportion_are_as_the_data_has_them_to_one_sample_and_in_turn() -> None:
    uneven = np.repeat([0, 2, 3], [85, 700, 15])  # sorted, and no class 1
    for n in (1, 10, 99, 800, 2000):
        found = labels_in_proportion(uneven, n)
        assert len(found) == n
        counts = np.bincount(found, minlength=4)
        assert (np.abs(counts - n * np.bincount(uneven) / 800) <= 1).all()
    np.testing.assert_array_equal(labels_in_proportion(np.repeat(np.arange(5), 40), 12), draw_labels(12, 5))
    with pytest.raises(ValueError, match="at least 1 of both"):
        labels_in_proportion(uneven, 0)


@pytest.mark.slow
def test_one_program_serves_all_batches_and_devices_deal_them_among_themselves() -> None:
    field = model_field(small_model(), 3)
    x_0, label = noise(19, (4, 4, 1), 0), draw_labels(19, 3)

    def program(x: jax.Array, label: jax.Array | None) -> jax.Array:
        return sample(field, x, grid(4), label)

    alone = np.concatenate([np.asarray(sample(field, x_0[i : i + 1], grid(4), jnp.asarray(label[i : i + 1]))) for i in range(19)])
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("batch", "fsdp"))
    for devices in (None, mesh):
        np.testing.assert_allclose(np.concatenate(list(in_batches(program, x_0, label, 8, devices))), alone, rtol=2e-4, atol=2e-5)
    placed = [jax.device_put(part[:8], jax.NamedSharding(mesh, jax.P(("batch", "fsdp")))) for part in (x_0, label)]
    dealt = jax.jit(program).lower(*placed).compile()
    assert dealt.output_shardings.spec == jax.P(("batch", "fsdp"))  # every device samples for itself
    assert "all-gather" not in dealt.as_text()


def oracle_samples(images: np.ndarray, count: int, n: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where full-oracle sampling ends, and the final top-1 weight and sample; t = 0.98 is the last time seen."""
    oracle = Oracle(images).unique()
    x_0 = jnp.asarray(noise(count, images.shape[1:], 7))
    found = trajectory(OracleField(oracle), x_0, grid(n))
    out = oracle(found.x[-2], float(uniform_timesteps(n)[-2]))
    return np.asarray(found.x[-1]), np.asarray(out.top1_weight), np.asarray(oracle.data[out.top1_index])


def check_it_ends_in_the_training_set(images: np.ndarray, count: int) -> None:
    ends, weight, nearest = oracle_samples(images, count)
    scale = images.std()
    away = np.abs(ends - nearest).max(axis=(1, 2, 3)) / scale
    assert (away[weight > 0.9999] < 1e-3).all()
    assert (weight <= 0.9999).mean() <= 1e-3


@pytest.mark.slow
def test_the_oracle_samples_its_training_set(digits: tuple[np.ndarray, np.ndarray]) -> None:
    check_it_ends_in_the_training_set(digits[0], 256)


@pytest.mark.long
def test_the_oracle_samples_its_training_set_of_clothes() -> None:
    clothes = load("fashion_mnist", 0, 0)[:12_000].reshape(-1, 28, 28, 1)
    check_it_ends_in_the_training_set(clothes, 64)


@pytest.mark.slow
def test_oracle_trajectories_do_not_drift_from_those_of_float64(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = digits[0][:200]
    edges = uniform_timesteps(40)
    x = noise(16, images.shape[1:], 2)
    found = trajectory(OracleField(Oracle(images, precision="high")), jnp.asarray(x), jnp.asarray(edges, jnp.float32))
    rows = x.reshape(16, -1).astype(np.float64)
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        rows = rows + (end - start) * np.stack([float64_oracle.velocity(images, row, start) for row in rows])
        np.testing.assert_allclose(np.asarray(found.x[i + 1]).reshape(16, -1), rows, atol=2e-4)
