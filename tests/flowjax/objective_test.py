"""Targets have the marginal velocity for their mean, times have the distribution that was asked for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flowjax.objective import Objective, minibatch_velocity
from flowjax.oracle import Oracle
from flowjax.path import Cosine, RectifiedFlow
from flowjax.schedules import TimeDistribution

DATA = np.array([[-1.5, 0.2], [0.4, 1.1], [0.9, -0.7], [1.8, 0.3], [-0.2, -1.4]])
CLASSES = np.array([0, 0, 1, 1, 0])


def posterior(x: np.ndarray, samples: np.ndarray, alpha: float, sigma: float) -> tuple[np.ndarray, float]:
    """Weights of the samples given x, and the density of x under their mixture (up to a constant); float64."""
    densities = np.exp(-((x - alpha * samples) ** 2).sum(1) / (2 * sigma**2))
    return densities / densities.sum(), densities.mean()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("path", [RectifiedFlow(), Cosine()], ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("by_class", [False, True])
def test_the_minibatch_target_has_the_marginal_velocity_for_its_mean(path, size: int, by_class: bool) -> None:
    """By enumeration of every batch of `size` out of five samples and every member as the query's own, in float64."""
    t = 0.4
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    a, b = float(path.A(t)), float(path.B(t))
    for x in np.array([[0.3, 0.1], [-0.8, 0.5], [1.1, -0.4]]):
        total, weight = np.zeros(2), 0.0
        for batch in itertools.combinations(range(5), size):
            for own in batch:
                if by_class and CLASSES[own] != 0:
                    continue
                members = [i for i in batch if not by_class or CLASSES[i] == 0]
                # p(batch, own, x): batches alike, own uniform in the batch, x from the own sample.
                likelihood = np.exp(-((x - alpha * DATA[own]) ** 2).sum() / (2 * sigma**2)) / size
                gamma, _ = posterior(x, DATA[members], alpha, sigma)
                total, weight = total + likelihood * (a * gamma @ DATA[members] + b * x), weight + likelihood
        whole = DATA[CLASSES == 0] if by_class else DATA
        gamma, _ = posterior(x, whole, alpha, sigma)
        np.testing.assert_allclose(total / weight, a * gamma @ whole + b * x, rtol=1e-9)  # path's α, σ are float32: the same on both sides


@pytest.mark.slow
@pytest.mark.parametrize("by_class", [False, True])
def test_minibatch_velocity_is_that_posterior(by_class: bool) -> None:
    path, t = RectifiedFlow(), jnp.array([0.2, 0.6, 0.9], jnp.float32)
    x = jnp.array([[0.3, 0.1], [-0.8, 0.5], [1.1, -0.4]], jnp.float32)
    label = jnp.array([0, 1, -1], jnp.int32) if by_class else None
    batch = jnp.asarray(DATA, jnp.float32)
    found = jax.jit(minibatch_velocity, static_argnums=0)(path, x, t, batch, jnp.asarray(CLASSES, jnp.int32), label)
    for row in range(3):
        members = DATA if label is None or label[row] == -1 else DATA[label[row] == CLASSES]
        gamma, _ = posterior(np.asarray(x[row], np.float64), members, float(t[row]), 1 - float(t[row]))
        np.testing.assert_allclose(found[row], (gamma @ members - x[row]) / (1 - float(t[row])), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_every_target_has_the_same_gradient_in_the_mean_and_the_oracle_the_least_spread(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """For a field v = w x the gradient of the loss in w is linear in the target: its mean is common, its variance falls."""
    images = jnp.asarray(digits[0][:64])
    oracle = Oracle(images, precision="high")  # a small program

    def gradients(target: str) -> np.ndarray:
        objective = Objective(target=target, times=TimeDistribution(t_max=0.9))

        def gradient(o, key):
            draw, key = jax.random.split(key)
            batch = images[jax.random.permutation(draw, 64)[:32]]
            examples = objective.prepare(batch, None, key, oracle=o)
            return jax.grad(lambda w: objective.losses(lambda x, t, _: w * x, examples).loss.mean())(jnp.float32(0.3))

        program = jax.jit(gradient)
        return np.array([program(oracle, key) for key in jax.random.split(jax.random.key(0), 150)])

    found = {target: gradients(target) for target in ("cfm", "minibatch", "oracle")}
    for target in ("minibatch", "oracle"):
        off = found[target] - found["cfm"]  # the same draws: what they share cancels
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
    assert found["oracle"].std() < found["cfm"].std()


def test_the_loss_of_an_example_is_its_mean_square_and_its_angle() -> None:
    rng = np.random.default_rng(0)
    velocity, target = rng.standard_normal((2, 4, 3, 3, 5)).astype(np.float32)
    plain = Objective().compare(jnp.asarray(velocity), jnp.asarray(target), jnp.zeros(4))
    np.testing.assert_allclose(plain.loss, ((velocity - target) ** 2).mean((1, 2, 3)), rtol=1e-5)
    turned = Objective(cosine_weight=0.5).compare(jnp.asarray(velocity), jnp.asarray(target), jnp.zeros(4))
    cosine = (velocity * target).sum(-1) / np.linalg.norm(velocity, axis=-1) / np.linalg.norm(target, axis=-1)
    np.testing.assert_allclose(turned.loss - turned.squared, 0.5 * (1 - cosine).mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("times", "law"),
    [
        (TimeDistribution(), stats.uniform()),
        (TimeDistribution(t_min=0.1, t_max=0.3), stats.uniform(0.1, 0.2)),
        (TimeDistribution("logit_normal", 0.3, 0.8), None),
        (TimeDistribution("logit_normal", 0.0, 1.0, 0.5, 0.2, 0.9), None),
        (TimeDistribution(shift=0.4, t_min=0.2), None),
    ],
    ids=["uniform", "a range", "logit-normal", "logit-normal, shifted, a range", "shifted, a range"],
)
def test_times_follow_their_distribution(times: TimeDistribution, law) -> None:
    drawn = np.asarray(times.sample(jax.random.key(3), 20_000), np.float64)
    assert times.t_min <= drawn.min() <= drawn.max() <= times.t_max
    if law is None:  # by rejection, from the definition
        rng = np.random.default_rng(0)
        t = rng.random(400_000) if times.kind == "uniform" else stats.logistic.cdf(rng.normal(times.mean, times.std, 400_000))
        t = times.shift * t / (1 + (times.shift - 1) * t)
        assert stats.ks_2samp(drawn, t[(t >= times.t_min) & (t <= times.t_max)]).pvalue > 1e-3
    else:
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TimeDistribution(t_min=0.5, t_max=0.2), "t_min"),
        (lambda: TimeDistribution("normal"), "kind"),
        (lambda: TimeDistribution(shift=0.0), "shift"),
        (lambda: Objective(target="marginal"), "marginal"),
        (lambda: Objective(cosine_weight=-1.0), "cosine_weight"),
        (lambda: Objective(target="oracle").prepare(jnp.ones((2, 3)), None, jax.random.key(0)), "Oracle"),
    ],
)
def test_bad_settings_are_refused_by_name(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
