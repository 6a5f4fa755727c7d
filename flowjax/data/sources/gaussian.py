"""Synthetic unit Gaussians: the data on which D and N can be set at will."""

import numpy as np

from flowjax.data.records import Records


def records(n: int, d: int, seed: int = 0) -> Records:
    """`n` independent draws from N(0, I) in `d` dimensions; shape (d,), no labels. The same seed gives the same data.

    Raises:
      ValueError: `n` or `d` below 1, or a negative seed.
    """
    for argument, value, least in (("n", n, 1), ("d", d, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"gaussian: {argument}={value}, expected at least {least}")
    return Records(
        name=f"unit Gaussian, D = {d:,}, N = {n:,}",
        rows=np.random.default_rng(seed).standard_normal((n, d), np.float32),
        provenance={"source": "gaussian", "seed": seed},
    )
