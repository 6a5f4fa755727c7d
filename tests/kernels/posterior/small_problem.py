"""A small data set and queries at every noise level, for the tests of the posterior."""

import numpy as np

N, D, B = 53, 5, 11
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((N, D)).astype(np.float32)
ALPHA = np.linspace(0.05, 1, B).astype(np.float32)
SIGMA = np.geomspace(1, 1e-3, B).astype(np.float32)
X = (ALPHA[:, None] * DATA[:B] + SIGMA[:, None] * RNG.standard_normal((B, D))).astype(np.float32)
