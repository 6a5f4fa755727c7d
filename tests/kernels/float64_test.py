"""Float64 inside programs whose caller has not enabled it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.float64 import argmax64, float64_scope


def test_argmax_takes_the_first_of_equal():
    """In float64, under jit."""

    @jax.jit
    def first(x: Any) -> Any:
        with float64_scope():
            return argmax64(x.astype(jnp.float64))

    np.testing.assert_array_equal(first(jnp.array([[1.0, 3, 3, 2], [5, 5, 5, 5], [-1, -2, -1, -3]])), [1, 0, 0])
