"""docs/your-model.md: each block runs as it stands, one after the other, and what it says of schedulers is so."""

import importlib.util
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.models import ExternalFlow
from flowjax.schedules import shift, uniform_timesteps

# Found here and imported in the page's blocks: a worker that runs none of these tests is spared the seconds.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed: pip install '.[torch]'")
TEXT = pathlib.Path("docs/your-model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_each_block_runs_as_it_stands() -> None:
    """In one namespace, as a reader would paste them; each field is asked for a velocity, and each sample is finite."""
    held: dict = {}
    fields = 0
    for block in blocks("python"):
        before = held.get("field")
        exec(block, held)
        for name in ("images", "latents"):
            if name in held:
                found = held.pop(name)
                assert found.shape[0] == 4
                assert bool(jnp.isfinite(found).all())
        fields += held.get("field") is not before
    assert fields == 5
    flow = held["make"]()
    assert isinstance(flow, ExternalFlow)
    assert flow.field(jnp.zeros((2, 8, 8, 1)), jnp.float32(0.5), jnp.zeros(2, jnp.int32)).shape == (2, 8, 8, 1)


@pytest.mark.parametrize("a", [1.0, 3.0])
def test_a_shift_of_diffusers_is_the_inverse_of_ours(a: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=a)
    n = 20
    scheduler.set_timesteps(sigmas=list(1 - uniform_timesteps(n)[:-1]))
    np.testing.assert_allclose(1 - scheduler.sigmas.numpy(), shift(uniform_timesteps(n), 1 / a), atol=1e-6)
    np.testing.assert_allclose(scheduler.timesteps.numpy() / 1000, scheduler.sigmas.numpy()[:-1], atol=1e-6)
