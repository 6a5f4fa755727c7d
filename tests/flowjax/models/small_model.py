"""A small LightningDiT whose parameters are all noise, and inputs for it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flowjax.models import LightningDiT

SMALL = {"image_shape": (8, 8, 3), "patch": 2, "depth": 2, "width": 24, "heads": 2, "num_classes": 5}


def noisy(model: LightningDiT, seed: int = 0) -> LightningDiT:
    """Every parameter random: at initialisation half of them are 0."""
    rng = np.random.default_rng(seed)
    for parameter in jax.tree.leaves(nnx.state(model, nnx.Param), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        parameter.set_value(parameter[...] + jnp.asarray(0.3 * rng.standard_normal(parameter.shape), jnp.float32))
    return model
