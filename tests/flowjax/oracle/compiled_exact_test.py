"""The compiled program of an oracle is as exact as a call that the host computes: one program for all these data sets."""

import jax
import numpy as np
import pytest

from flowjax.oracle import Oracle
from tests import float64_oracle as exact
from tests.flowjax.oracle.hard_data import LABELS, PATHS, SETS, B, T, check, off_path, on_path
from tests.xla_flags import OLDER_EMITTERS

AS_USERS_HAVE_IT = {"xla_cpu_use_fusion_emitters": True} if OLDER_EMITTERS else {}
"""What `tests/xla_flags.py` turns off."""
PROGRAM = jax.jit(lambda oracle, x, t, label: oracle(x, t, label), compiler_options=AS_USERS_HAVE_IT)
LABEL = np.resize([-1, 0, 1, 2, 3], B).astype(np.int32)
OTHERS = [key for key in SETS if "shifted" not in key and key != "large numbers"]
"""What is promised on every path: `oracle_test.py`."""
CASES = [
    pytest.param(name, key, marks=pytest.mark.slow if name == exact.RECTIFIED and "shifted" not in key else pytest.mark.long)
    for name in exact.NAMES
    for key in (SETS if name == exact.RECTIFIED else OTHERS)
]
"""Each path has a program of its own, as have data far from the origin; these and the other paths' by hand: `make test-long`."""


@pytest.mark.parametrize(("name", "key"), CASES)
def test_a_compiled_oracle_is_exact(name, key):
    """All promised tolerances at every t in [0.001, 0.999], by class and not, on the path and off it."""
    data = SETS[key]
    oracle = Oracle(data, LABELS, path=PATHS[name])
    for x in (on_path(data, name), off_path(data, name)):
        wanted = exact.oracle(data, x, T, name, labels=LABELS, label=LABEL)
        check(PROGRAM(oracle, x, T, LABEL), wanted, T, name)
