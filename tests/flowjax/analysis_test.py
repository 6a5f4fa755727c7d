"""What the analysis counts with: contests on shared seeds, waviness, reductions of an error, staged flows in one file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from flowjax.analysis.paired_scores import PairedScores
from flowjax.fields import model_field
from flowjax.metrics.loss_by_t import reduction
from flowjax.metrics.waviness import waviness
from flowjax.models import Architecture, LightningDiT, export_lightningdit
from flowjax.models.convert import write_tensors
from flowjax.models.trained import load_trained, save_staged

T = np.linspace(0.4, 0.98, 30)


def test_what_all_settings_share_on_a_seed_does_not_widen_a_comparison() -> None:
    seeds = np.array([1.0, 1.6, 0.7, 1.2])
    contest = PairedScores(np.stack([10 * seeds, 11 * seeds, 9 * seeds]))
    assert contest.best == 2
    np.testing.assert_allclose(contest.change(1, 0), 0.1, rtol=1e-9)
    np.testing.assert_allclose(contest.regret(0), 10 / 9 - 1, rtol=1e-9)
    np.testing.assert_allclose(contest.regret(2), 0, atol=1e-12)
    assert contest.score(0).high - contest.score(0).low > 5
    np.testing.assert_allclose(contest.beside(1, 0), 11 * seeds.mean(), rtol=1e-9)


@given(st.integers(0, 2**31))
def test_the_best_of_many_equal_settings_is_not_taken_for_better(seed: int) -> None:
    """Chosen and measured on the same seeds, the best of 50 equals would beat a fixed one by two spreads."""
    contest = PairedScores(np.exp(0.1 * np.random.default_rng(seed).standard_normal((50, 20))))
    best, fixed = contest.best, 17
    assert contest.scores[best].mean() < contest.scores[fixed].mean() or best == fixed
    low, high = contest.regret(fixed)[1:]
    assert low < 0.06
    assert high > -0.06


@pytest.mark.parametrize("scores", [np.ones((3, 1)), np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones(4)])
def test_scores_that_are_none_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="settings, seeds"):
        PairedScores(scores)


def errors(loss: np.ndarray, queries: int = 400, noise: float = 0.5) -> np.ndarray:
    """Errors of queries whose mean is a loss; each query is off by a factor of its own at each t."""
    return loss[:, None] * np.exp(noise * np.random.default_rng(0).standard_normal((len(loss), queries)) - noise**2 / 2)


def test_waviness_sees_waves_and_not_the_noise_of_few_queries() -> None:
    parabola = np.exp(1 - 3 * (T - 0.6) ** 2)
    waves = parabola * np.exp(0.1 * np.sin(40 * T))
    smooth, wavy = waviness(T, errors(parabola)).value, waviness(T, errors(waves)).value
    assert smooth.low == 0
    assert smooth.value < 0.02 < wavy.low
    assert wavy.low < 0.1 / np.sqrt(2) < wavy.high  # the root mean square of a sine
    np.testing.assert_allclose(waviness(T, 7.3 * errors(waves)).value, wavy, rtol=1e-9)
    np.testing.assert_allclose(waviness(T, parabola[:, None] * np.ones(3)).fit, parabola, rtol=1e-9)


def test_waviness_needs_more_times_than_its_fit_has_coefficients() -> None:
    with pytest.raises(ValueError, match="3 coefficients"):
        waviness(T[:3], np.ones((3, 5)))
    with pytest.raises(ValueError, match="above 0"):
        waviness(T, np.zeros((30, 5)))


def test_a_reduction_is_paired_over_queries() -> None:
    before = errors(np.ones(20), noise=1.0)
    found = reduction(before, before - 0.1)
    np.testing.assert_allclose(found.absolute, 0.1, rtol=1e-9)
    assert found.relative.low < 0.1 / before.mean() < found.relative.high
    with pytest.raises(ValueError, match="same times and queries"):
        reduction(before, before[:, 1:])


def model(shape: tuple[int, int, int], depth: int, classes: int = 10) -> LightningDiT:
    found = LightningDiT(Architecture(shape, 2, depth, 16, 2, num_classes=classes), rngs=nnx.Rngs(depth))
    last = found.final_layer.linear.weight
    last.set_value(jax.random.normal(jax.random.key(depth), last.shape, jnp.float32))
    return found


def test_a_staged_flow_is_one_file_and_each_model_has_its_turn(tmp_path: pathlib.Path) -> None:
    small, large = model((4, 4, 1), 1), model((4, 4, 1), 3)
    save_staged([small, large], [0.4], tmp_path / "staged.safetensors", {"dataset": "digits"})
    flow = load_trained(tmp_path / "staged.safetensors")
    assert (flow.edges, flow.image_shape, flow.num_classes, flow.about["dataset"]) == ((0.4,), (4, 4, 1), 10, "digits")
    x, label = jnp.ones((2, 4, 4, 1)), jnp.array([1, 2], jnp.int32)
    for t, own in ((0.39, small), (0.4, large), (0.9, large)):
        found, wanted = flow.field(x, jnp.float32(t), label), model_field(own, 10)(x, jnp.float32(t), label)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)  # two programs, and float32 sums of numbers of about 1


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"edges": 3}',
        '{"edges": ["x"]}',
        '{"image_shape": [4, 4]}',
        '{"image_shape": [4, 4, -1]}',
        '{"path": ["os.system"]}',
        '{"value_range": "x"}',
        '{"normalization": {"mean": "x"}}',
        '{"frechet": {"ratio": "x"}}',
        '{"config": {"data": 3}}',
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(tmp_path: pathlib.Path, told: str) -> None:
    write_tensors(export_lightningdit(model((4, 4, 1), 1)), tmp_path / "x.safetensors", {"flowjax": told})
    with pytest.raises(ValueError, match="what it says of itself cannot be read") as error:
        load_trained(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value)


def test_stages_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    for other in (model((4, 6, 1), 1), model((4, 4, 1), 1, classes=3)):
        with pytest.raises(ValueError, match="models of the same samples"):
            save_staged([model((4, 4, 1), 1), other], [0.4], tmp_path / "staged.safetensors", {})
    with pytest.raises(ValueError, match="edges"):
        save_staged([model((4, 4, 1), 1)] * 2, [0.4, 0.2], tmp_path / "staged.safetensors", {})
    assert not list(tmp_path.iterdir())
