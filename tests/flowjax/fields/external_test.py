"""Models of other frameworks as fields: the optimum of a small data set, in each parametrisation, is the oracle."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.fields import (
    ExternalField,
    autoguided,
    check_direction,
    divergence,
    external_field,
    guided,
    measure_direction,
    staged,
)
from flowjax.oracle import Oracle
from flowjax.path import Cosine
from flowjax.sampling import log_likelihood, sample, trajectory
from flowjax.schedules import uniform_timesteps

torch = pytest.importorskip("torch")
from tests.flowjax.torch_optimum import Optimum  # noqa: E402

TIMES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
SHAPE = (3, 2, 2)
DATA = np.random.default_rng(0).normal(size=(12, *SHAPE)).astype(np.float32)
LABELS = np.arange(12, dtype=np.int32) % 3
DDPM = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
NULL = 3


def optimum(**how: Any) -> Optimum:
    """Of `DATA`, in PyTorch's layout."""
    return Optimum(torch.tensor(DATA).movedim(-1, 1).double(), torch.tensor(LABELS), null_label=NULL, **how)


def field_of(**how: Any) -> ExternalField:
    """The optimum as a field, told to `external_field` as it is."""
    told = {key: value for key, value in how.items() if key in ("prediction", "schedule", "time", "alphas_cumprod", "noise_scale")}
    if how.get("schedule") == "ddpm" and "time" not in how:
        how = how | {"time": ""}
    return external_field(optimum(**how), layout="NCHW", null_label=NULL, **told)


def queries() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, t and labels of a query for each sample at each time."""
    t = np.repeat(np.float32(TIMES), len(DATA))
    data = np.tile(DATA, (len(TIMES), 1, 1, 1))
    noise = np.random.default_rng(1).normal(size=data.shape)
    expanded = t[:, None, None, None]
    return (expanded * data + (1 - expanded) * noise).astype(np.float32), t, np.tile(LABELS, len(TIMES))


@functools.cache
def exact(labelled: bool) -> np.ndarray:
    x, t, label = queries()
    oracle = Oracle(DATA, LABELS if labelled else None, implementation="streaming")
    return np.asarray(oracle(x, t, label if labelled else None).velocity).reshape(len(x), -1)


def worst(field: Any, labelled: bool) -> float:
    """The largest relative error against the oracle of any query."""
    x, t, label = (jnp.asarray(part) for part in queries())
    found = np.asarray(field(x, t, label if labelled else None)).reshape(len(x), -1)
    return float(np.max(np.linalg.norm(found - exact(labelled), axis=1) / np.linalg.norm(exact(labelled), axis=1)))


FLOWS = [
    {"schedule": schedule, "prediction": prediction, "time": time}
    for schedule in ("rectified_flow", "cosine")
    for prediction, time in (
        ("velocity", "data_is_one"),
        ("velocity", "noise_is_one"),
        ("velocity", "thousand"),
        ("denoised", "noise_is_one"),
        ("epsilon", "thousand"),
        ("score", "data_is_one"),
    )
]
DIFFUSIONS = [
    {"schedule": "ddpm", "alphas_cumprod": DDPM, "prediction": prediction} for prediction in ("epsilon", "v", "denoised", "score")
]
OTHERS = [
    {"schedule": "cosine", "prediction": "v"},
    {"schedule": "ddpm", "alphas_cumprod": DDPM, "prediction": "epsilon", "time": "fractional_step"},
    {"schedule": "edm", "prediction": "denoised", "time": "sigma"},
    {"schedule": "edm", "prediction": "epsilon", "time": "c_noise"},
    {"schedule": "edm", "prediction": "score", "time": "sigma"},
    {"prediction": "velocity", "noise_scale": 2.0},
    {"prediction": "denoised", "noise_scale": 0.5, "time": "noise_is_one"},
]


@pytest.mark.slow
@pytest.mark.parametrize("how", FLOWS + DIFFUSIONS + OTHERS, ids=lambda how: "-".join(str(v) for v in how.values() if np.ndim(v) == 0))
def test_the_optimum_in_each_parametrisation_is_the_oracle(how: dict[str, Any]) -> None:
    field = field_of(**how)
    assert worst(field, labelled=True) < 1e-4
    assert worst(field, labelled=False) < 1e-4
    assert field.model.framework == "torch"


@pytest.mark.slow
def test_it_is_sampled_guided_staged_and_looked_at_as_any_field_is() -> None:
    """The same optimum as a network of EDM and as a velocity: wherever a field is taken, both do the same."""
    field, other = field_of(prediction="epsilon", schedule="edm", time="sigma"), field_of()
    x_0 = jnp.asarray(np.random.default_rng(2).normal(size=(9, *SHAPE)), jnp.float32)
    label, t = jnp.arange(9, dtype=jnp.int32) % 3, jnp.asarray(uniform_timesteps(12), jnp.float32)
    pushed, expected = (sample(guided(staged([one, other], [0.5]), 2.0, (0.1, 0.6)), x_0, t, label) for one in (field, other))
    np.testing.assert_allclose(pushed, expected, atol=0.01)
    seen, known = (trajectory(one, x_0, t, label) for one in (field, other))
    np.testing.assert_allclose(seen.one_step, known.one_step, atol=0.07)  # at t = 0 EDM is asked at its most noise, σ = 80
    np.testing.assert_allclose(seen.x, known.x, atol=0.01)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_each_framework_is_found_out_and_asked_in_batches(batch_size: int | None) -> None:
    rows: list[int] = []

    def seen(x: Any) -> Any:
        rows.append(len(x))
        return x

    functions = {
        "jax": lambda x, t, label: jnp.tanh(seen(x)) * t[:, None],
        "numpy": lambda x, t, label: np.tanh(seen(x)) * t[:, None],
        "torch": lambda x, t, label: torch.tanh(seen(x)) * t[:, None],
    }
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    for name, fn in functions.items():
        field = external_field(fn, batch_size=batch_size)
        rows.clear()
        for program in (field, jax.jit(field)):
            np.testing.assert_allclose(program(x, jnp.float32(0.5), None), np.tanh(x) * 0.5, rtol=1e-5)
        assert field.model.framework == name
        assert max(rows) == (batch_size or 6)


def test_a_torch_function_may_write_into_what_it_is_given() -> None:
    field = external_field(lambda x, t, label: x.mul_(2), framework="torch")
    x = jnp.ones((2, 3))
    for program in (field, jax.jit(field), jax.jit(lambda x, t, label: field(x, t, label) + 0 * x)):
        np.testing.assert_array_equal(program(x, jnp.float32(0.5), None), 2 * np.ones((2, 3)))
    np.testing.assert_array_equal(x, np.ones((2, 3)))


def test_a_module_is_asked_where_and_in_what_it_computes_and_a_label_in_whole_numbers() -> None:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = torch.nn.Embedding(4, 5), torch.nn.Linear(5, 5)

        def forward(self, x: Any, t: Any, y: Any) -> Any:
            assert x.dtype == torch.bfloat16
            return self.linear(x) + self.table(y)

    module = Module().to(torch.bfloat16).eval()
    field = external_field(module, null_label=3)
    x = jnp.ones((2, 5))
    found = jax.jit(field)(x, jnp.float32(0.5), jnp.array([1, -1], jnp.int32))
    expected = module(torch.ones((2, 5), dtype=torch.bfloat16), None, torch.tensor([1, 3])).float().detach()
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected.numpy())
    np.testing.assert_array_equal(field(x, jnp.float32(0.5), None)[0], expected[1].numpy())


def test_the_likelihood_of_a_torch_model_is_that_of_its_flow() -> None:
    """u = (x_1 - x_0 in the mean) of Gaussian data of deviation s: p(x) at t = 1 is N(0, s²)."""
    s, d = 0.5, 3

    def gaussian(x: Any, t: Any, label: Any) -> Any:
        t = t[:, None]
        return x * (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, d)) * s, jnp.float32)
    expected = -0.5 * np.sum((np.asarray(x) / s) ** 2, 1) - d * np.log(s * np.sqrt(2 * np.pi))
    t = jnp.asarray(uniform_timesteps(50), jnp.float32)
    np.testing.assert_allclose(log_likelihood(external_field(gaussian, framework="torch"), x, t), expected, atol=0.1)
    with pytest.raises(NotImplementedError, match="a NumPy function has no derivative"):
        divergence(external_field(gaussian, framework="numpy"), x, jnp.float32(0.5), None)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"prediction": "noise"}, "prediction = 'noise': expected one of velocity, denoised"),
        ({"schedule": "linear"}, "unknown path 'linear'; there are rectified_flow, .*, ddpm, edm"),
        ({"schedule": "ddpm", "prediction": "v"}, "give the scheduler's alphas_cumprod"),
        ({"alphas_cumprod": DDPM}, "leave it out with schedule = 'rectified_flow'"),
        ({"schedule": "ddpm", "prediction": "epsilon", "alphas_cumprod": DDPM[::-1]}, "falling"),
        ({"schedule": "ddpm", "alphas_cumprod": DDPM}, "a diffusion model has none"),
        ({"prediction": "v"}, "a flow model's is 'velocity'"),
        ({"prediction": "v", "schedule": Cosine(), "noise_scale": 2.0}, "α² \\+ σ² = 1"),
        ({"time": "sigma"}, "time = 'sigma': expected one of data_is_one"),
        ({"schedule": "edm", "prediction": "denoised", "time": "thousand"}, "expected one of sigma, c_noise"),
        ({"schedule": "edm", "prediction": "denoised", "noise_scale": 2.0}, "which says how much noise"),
        ({"noise_scale": 0.0}, "noise_scale = 0.0"),
        ({"layout": "CHW"}, "layout = 'CHW'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"framework": "tensorflow"}, "framework = 'tensorflow'"),
        ({"null_label": True}, "null_label = True"),
    ],
)
def test_wrong_settings_end_in_one_line(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        external_field(lambda x, time, label: x, **told)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, t, y: torch.cat([x, x], 1), "its second half is a variance"),
        (lambda x, t, y: x[:, :, :1], r"returns \(1, 3, 1, 2\) for x \(1, 3, 2, 2\).* is layout= right"),
        (lambda x, t, y: None, "returns a NoneType"),
        (lambda x, t, y: x @ torch.ones(7, 7), "the model fails on x .*: RuntimeError"),
    ],
)
def test_a_model_of_another_shape_says_so_in_one_line_before_anything_is_compiled(fn: Any, message: str) -> None:
    for program in (external_field(fn, layout="NCHW", framework="torch"), jax.jit(external_field(fn, layout="NCHW"))):
        with pytest.raises(ValueError, match=message) as error:
            program(jnp.ones((2, 2, 2, 3)), jnp.float32(0.5), None)
        assert "\n" not in str(error.value)


def test_what_is_no_function_of_three_or_still_trains_says_so() -> None:
    with pytest.raises(ValueError, match="wrap it, as in lambda x, time, label"):
        external_field(torch.nn.Linear(2, 2).eval())
    with pytest.raises(ValueError, match="missing a required argument"):
        external_field(lambda x, t, y, more: x)
    module = torch.nn.Linear(2, 2)
    module.forward = lambda x, t, y: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"call its \.eval\(\) first"):
        external_field(module)


@pytest.mark.parametrize("how", [OTHERS[2], DIFFUSIONS[0], {"prediction": "score"}], ids=["edm", "ddpm", "score"])
def test_beyond_the_noise_that_a_model_knows_its_nearest_level_is_asked(how: dict[str, Any]) -> None:
    """At t = 0 the velocity is the mean minus x; near t = 1 it stays of ordinary size."""
    field = field_of(**how)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(5, *SHAPE)), jnp.float32)
    np.testing.assert_allclose(field(x, jnp.float32(0), None), DATA.mean(0) - x, atol=0.1)
    t, data = np.float32(0.9995), jnp.asarray(DATA[:5])
    late = field(t * data + (1 - t) * x, jnp.float32(t), None)
    assert float(jnp.abs(late - (data - x)).max()) < 4


@pytest.mark.parametrize(
    ("wrong", "right", "remedy"),
    [
        ({"time": "data_is_one"}, {"time": "noise_is_one"}, "time='noise_is_one'"),
        ({"time": "thousand"}, {"time": "data_is_one"}, "time='data_is_one'"),
        ({"prediction": "velocity"}, {"prediction": "epsilon"}, "prediction='epsilon'"),
    ],
)
def test_a_wrong_direction_of_time_is_found_and_what_fits_is_named(wrong: dict[str, Any], right: dict[str, Any], remedy: str) -> None:
    assert not measure_direction(field_of(**right), DATA, LABELS).wrong
    field = external_field(optimum(**right), layout="NCHW", null_label=NULL, **wrong)
    with pytest.raises(ValueError, match=rf"^the velocity is worse than none: at t = .*{remedy}") as error:
        check_direction(field, DATA, LABELS)
    assert "\n" not in str(error.value)


def test_a_wrong_sign_is_found_and_an_untrained_model_is_not_taken_for_one() -> None:
    flow = optimum(time="thousand")
    field = external_field(lambda x, time, label: -flow(x, time, label), time="thousand", layout="NCHW", null_label=NULL)
    assert "return the negative" in (measure_direction(field, DATA, LABELS).remedy or "")
    torch.manual_seed(0)
    linear = torch.nn.Linear(2, 2)
    found = measure_direction(external_field(lambda x, time, label: linear(x)), DATA)
    assert found.wrong
    assert found.remedy is None
    assert "is it trained" in found.sentence


def test_autoguidance_pushes_away_from_the_weaker_field_within_its_interval() -> None:
    x, label = jnp.ones((2, 3)), None
    strong, weak = (external_field(lambda x, t, y, factor=factor: factor * x) for factor in (3.0, 2.0))
    field = autoguided(strong, weak, 2.0, (0.2, 0.6))
    for t, expected in ((0.1, 3.0), (0.2, 4.0), (0.6, 3.0)):
        np.testing.assert_allclose(field(x, jnp.float32(t), label), expected * x)
    with pytest.raises(ValueError, match="guidance scale = nan"):
        autoguided(strong, weak, float("nan"))
