"""Settings of every test: eight CPU devices, strict dtype promotion, and shapes that are checked where they are annotated."""

import os

# Before JAX is imported: eight CPU devices for what is sharded, and no accelerator, whose rounding differs.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jaxtyping

# Before the packages are imported: every jaxtyping annotation is checked at each call (under jit: when it is traced).
jaxtyping.install_import_hook(["flowjax", "kernels", "experiments"], "beartype.beartype")

import hypothesis
import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=20, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 digits, `[1797, 8, 8, 1]` float32 in [-1, 1], and their labels."""
    found = load_digits()
    return (found.images[..., None] / 8 - 1).astype(np.float32), found.target.astype(np.int32)
