"""An index in a file is that of its samples, or is made anew."""

import dataclasses

import numpy as np

from kernels.posterior.cpu.index_file import load_index, save_index
from tests.kernels.posterior.cpu.adversaries import DATA, index_of


def test_an_index_comes_back_from_its_file_and_is_of_those_samples_alone(tmp_path):
    """Every array to the bit; None for other samples, for a file cut short, for something else, and for no file."""
    data, labels = DATA["falling spectrum"], (np.arange(500) % 3).astype(np.int32)
    own, file = index_of(data, labels), tmp_path / "index.npz"
    save_index(own, file)
    found = load_index(own, file)
    assert found is not None
    for field in dataclasses.fields(own):
        a, b = getattr(own, field.name), getattr(found, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        elif field.name != "table":
            assert a == b, field.name
    for a, b in zip(own.table, found.table, strict=True):
        for left, right in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            np.testing.assert_array_equal(left, right)
    assert load_index(index_of(data + 1), file) is None
    assert load_index(index_of(data), file) is None  # without classes
    file.write_bytes(file.read_bytes()[:-1000])
    assert load_index(own, file) is None
    file.write_text("something else")
    assert load_index(own, file) is None
    assert load_index(own, tmp_path / "none.npz") is None
