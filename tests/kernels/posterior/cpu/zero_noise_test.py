"""At σ = 0 the host gives the nearest sample, as the compiled program does."""

import numpy as np
import pytest

from kernels.posterior import posterior

DATA = np.random.default_rng(0).standard_normal((60, 7)).astype(np.float32)
DATA[20:25] = DATA[20]
COUNTS = np.where(np.arange(60) == 5, 3.0, 1.0).astype(np.float32)


@pytest.mark.slow
def test_the_nearest_sample_and_its_equals_share_the_weight():
    """Samples, copies, points between, a class, a class without samples, and α = 0, where all are equally near."""
    x = np.concatenate([DATA[[5, 20, 7]], 0.5 * (DATA[1:2] + DATA[2:3]), DATA[:1], DATA[:1]])
    alpha, label = np.float32([1, 1, 0.5, 1, 1, 0]), np.int32([-1, 2, -1, 0, 9, -1])
    asked = {"labels": np.arange(60) % 3, "query_labels": label, "counts": COUNTS}
    host, compiled = (posterior(x, alpha, np.zeros(6), DATA, implementation=name, **asked) for name in (None, "streaming"))
    for name in ("denoised", "log_density", "top1_weight", "top1_index", "entropy", "effective_samples", "variance", "error_bound"):
        np.testing.assert_allclose(getattr(host, name), getattr(compiled, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert host.top1_index.tolist()[:2] == [5, 20]
    assert np.isnan(host.denoised[4]).all()
