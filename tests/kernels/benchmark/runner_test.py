"""What the benchmark measures with: its float64 reference, its data and its exponents."""

import numpy as np
import pytest

from kernels.benchmark import runner as bench
from kernels.benchmark.competitors import numpy_dense, reference_velocity
from tests import float64_oracle as exact


def test_the_reference_is_the_oracle():
    """Float64 against the independent one, off-centre data included."""
    data = bench.synthetic(300, 12) + np.float32(3)
    for t in (0.1, 0.5, 0.97):
        x, _ = bench.queries(data, t, 5)
        true = exact.oracle(data, x, t).velocity
        assert bench._error(reference_velocity(data, x, t), true) < 1e-8
        assert bench._error(numpy_dense(data)(x, float(np.float32(t))), true) < 1e-3


def test_an_exponent_is_that_of_a_power_law():
    rows = [{"part": "growth with N", "n": n, "d": 7, "t": 0.1, "implementation": "a", "seconds": 3e-9 * n**1.5} for n in (10, 100, 1000)]
    assert bench.exponents(rows)[0] == ("growth with N", 0.1, "a", pytest.approx(1.5))


def test_data_come_from_files(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(bench.load(str(tmp_path / "images.npy"), 0, 0), images.reshape(2, 12))
    header = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    np.testing.assert_allclose(bench.load(str(tmp_path / "train-images-idx3-ubyte"), 0, 0), images.reshape(2, 12) / 127.5 - 1, atol=1e-6)
