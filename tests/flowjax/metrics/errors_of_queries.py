"""Errors of queries whose mean is a given loss."""

import numpy as np


def errors(loss: np.ndarray, queries: int = 400, noise: float = 0.5) -> np.ndarray:
    """Errors of queries whose mean is a loss; each query is off by a factor of its own at each t."""
    return loss[:, None] * np.exp(noise * np.random.default_rng(0).standard_normal((len(loss), queries)) - noise**2 / 2)
