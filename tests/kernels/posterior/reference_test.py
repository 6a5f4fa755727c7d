"""The definition in ten lines that every implementation answers to, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from kernels.posterior import reference
from tests import float64_oracle as exact
from tests.kernels.posterior.small_problem import ALPHA, DATA, SIGMA, B, X


def test_reference_is_the_definition():
    """The ten lines that every implementation answers to, in float64, against NumPy."""
    with jax.enable_x64(True):
        found = reference(*(jnp.asarray(v, jnp.float64) for v in (X, ALPHA, SIGMA, DATA)))
    for i in range(B):
        wanted = exact.posterior(DATA, X[i], ALPHA[i], SIGMA[i])
        for name, value in found.items():
            np.testing.assert_allclose(value[i], wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)
