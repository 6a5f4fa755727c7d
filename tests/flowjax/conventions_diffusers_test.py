"""What advice tells users of diffusers, against diffusers' own code: the scheduler's steps, the pipeline's μ, the steps that are guided."""

import ast
import importlib.util
import pathlib
import types
from collections.abc import Callable

import numpy as np
import pytest

from flowjax.analysis.rules_of_thumb import flux_mu
from flowjax.conventions import CONVENTIONS, told

# Found here and imported in a fixture: a worker that runs none of these tests is spared the seconds.
FOUND = importlib.util.find_spec("diffusers")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(FOUND is None, reason="diffusers is not installed: pip install '.[torch]'")]

SHIFTS = (0.1, 0.317, 1 / 3, 0.737, 1.0, 2.5)
INTERVALS = ((0.1, 0.6), (0.29, 0.45), (0.29, 0.58), (0.0, 1.0))


@pytest.fixture(scope="module")
def diffusers() -> types.ModuleType:
    import diffusers

    return diffusers


@pytest.fixture(scope="module")
def scheduler(diffusers: types.ModuleType) -> type:
    return diffusers.FlowMatchEulerDiscreteScheduler


def calculate_shift() -> Callable[..., float]:
    """Of the Flux pipeline, whose module imports transformers: the function alone."""
    assert FOUND is not None
    assert FOUND.origin is not None
    file = pathlib.Path(FOUND.origin).parent / "pipelines" / "flux" / "pipeline_flux.py"
    [code] = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "calculate_shift"]
    names: dict[str, Callable[..., float]] = {}
    exec(compile(ast.Module([code], []), str(file), "exec"), names)
    return names["calculate_shift"]


@pytest.mark.parametrize("s", SHIFTS)
@pytest.mark.parametrize("n", [1, 10, 28, 50])
@pytest.mark.parametrize("name", ["diffusers", "sd3"])
def test_a_shift_of_diffusers_gives_its_schedulers_own_steps(name: str, s: float, n: int, scheduler: type) -> None:
    convention = CONVENTIONS[name]
    theirs = scheduler(shift=convention.shift.of(s))
    theirs.set_timesteps(n)
    np.testing.assert_allclose(1 - convention.times(s, n), theirs.sigmas.numpy(), atol=1e-6)
    np.testing.assert_allclose(1000 * (1 - convention.times(s, n)[:-1]), theirs.timesteps.numpy(), atol=1e-3, rtol=1e-6)


@pytest.mark.parametrize("s", SHIFTS)
def test_a_shift_of_flux_gives_its_pipelines_own_steps(s: float, scheduler: type) -> None:
    mu = CONVENTIONS["flux"].shift.of(s)
    theirs = scheduler(use_dynamic_shifting=True, base_shift=mu, max_shift=mu)
    for tokens in (64, 4096):  # as its pipeline calls it
        own = calculate_shift()(tokens, 256, 4096, theirs.config.base_shift, theirs.config.max_shift)
        theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / 28, 28), mu=own)
        np.testing.assert_allclose(1 - CONVENTIONS["flux"].times(s, 28), theirs.sigmas.numpy(), atol=1e-6)


def test_the_line_for_diffusers_can_be_run(scheduler: type, diffusers: types.ModuleType) -> None:
    for name in ("diffusers", "sd3", "flux"):
        unit = told(name, 0.737, (0.3, 0.6), 50)
        pipe = types.SimpleNamespace(scheduler=scheduler(shift=3.0))
        names = {"pipe": pipe, "scheduler": pipe.scheduler, "W": 2.5}
        names |= {made.__name__: made for made in (scheduler, diffusers.ClassifierFreeGuidance)}
        exec(unit["shift_line"], names)
        exec(unit["interval_line"], names)
        made = pipe.scheduler if name != "diffusers" else names["scheduler"]
        amount = made.config.base_shift if name == "flux" else made.config.shift
        assert amount == pytest.approx(unit["shift"], rel=1e-5)


@pytest.mark.parametrize("name", ["diffusers", "flux"])
@pytest.mark.parametrize("n", [7, 28, 50, 100])
def test_diffusers_guides_the_steps_inside_the_interval(name: str, n: int, diffusers: types.ModuleType) -> None:
    convention, s = CONVENTIONS[name], 0.6
    begins = convention.times(s, n)[:-1]
    for low, high in INTERVALS:
        start, stop = convention.interval.of((low, high), s, n)
        guider = diffusers.ClassifierFreeGuidance(guidance_scale=2.5, start=start, stop=stop)
        guided = []
        for step in range(n):
            guider.set_state(step=step, num_inference_steps=n, timestep=0)
            guided.append(guider._is_cfg_enabled())
        np.testing.assert_array_equal(guided, (begins >= low) & (begins < high))
        back = convention.interval.to_t((start, stop), s, n)
        np.testing.assert_array_equal((begins >= back[0]) & (begins < back[1]), guided)


def test_flux_mu_is_that_of_its_pipeline() -> None:
    for tokens in (16.0, 256.0, 1000.0, 4096.0):
        assert flux_mu(tokens) == pytest.approx(calculate_shift()(tokens), rel=1e-12)
