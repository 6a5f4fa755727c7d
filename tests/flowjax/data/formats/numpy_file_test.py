"""NumPy's files: read as NumPy reads them, without unpickling anything; cut short, damaged or pickled ones are named."""

import math
import pathlib
import pickle
import re

import numpy as np
import pytest

from flowjax import data
from flowjax.data.formats.numpy_file import read_numpy
from tests.flowjax.data.small_images import LABELS


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n rest", "a PNG image"),
        (b"0\n1\n2\n", "text that begins with '0'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\1\2\3\4\5\6\7\0", "of an unknown format"),
    ],
)
def test_a_file_that_is_not_numpys_is_called_what_it_is(tmp_path, content, kind):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"no NumPy file but {kind}"):
        data.load("arrays", path=tmp_path / "x.npy")


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["npy", "npz", "pickle"])
def test_pickled_files_are_refused_and_never_run(tmp_path, form):
    marker, path = tmp_path / "was_run", tmp_path / f"trap.{form}"
    array = np.array([[Trap(marker)]], dtype=object)
    if form == "npy":
        np.save(path, array, allow_pickle=True)
    elif form == "npz":
        np.savez(path, data=array, labels=LABELS)
    else:
        path.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(ValueError, match="nothing is unpickled") as error:
        data.load("arrays", path=path)
    assert "\n" not in str(error.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists()  # the trap does work


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("kept", [0, 1, 8, 60, 0.5, 0.99])
def test_files_cut_short_are_named(tmp_path, name, kept):
    path = tmp_path / name
    array = np.random.default_rng(0).normal(size=(50, 20))
    np.save(path, array) if name == "x.npy" else np.savez_compressed(path, data=array, labels=np.arange(50))
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"x\.np[yz]: .*(empty|not readable)") as error:
        data.load("arrays", path=path)
    assert "\n" not in str(error.value)


def test_damaged_archives_never_load_in_silence(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, data=np.random.default_rng(0).normal(size=(50, 20)))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not readable"):
        data.load("arrays", path=path)


@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "u1", "?", "i8", "U3", "S2", "M8[ns]", "c8", "V2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (1, 2, 3)])
def test_numpys_files_are_read_as_numpy_reads_them(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 256, (math.prod(shape), np.dtype(dtype).itemsize), np.uint8) & 1
    for order in "CF":
        written = np.reshape(array.view(dtype), shape, order=order)
        np.save(tmp_path / "x.npy", written)
        np.savez_compressed(tmp_path / "x.npz", x=written, y=written)
        expected = np.load(tmp_path / "x.npy")
        for found in (read_numpy(tmp_path / "x.npy")[""], read_numpy(tmp_path / "x.npz")["y"]):
            assert (found.dtype, found.shape, found.strides) == (expected.dtype, expected.shape, expected.strides)
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L), }", ""),  # of Python 2
        ('{"shape":(2,1),"fortran_order":False,"descr":"<f4"}\n', ""),  # of other libraries
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", "cut short: it has 75 bytes where its header describes 83"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2 1,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (2,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 'x'}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False}", "damaged: its header is"),
        ("{'descr': 'f4,f4', 'fortran_order': False, 'shape': (1,)}", "its dtype 'f4,f4' is not one of plain numbers"),
        ("{'descr': '<k4', 'fortran_order': False, 'shape': (2,)}", "its dtype '<k4' is not known"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "records of several fields"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "nothing is unpickled here"),
    ],
)
def test_headers_of_npy_files(tmp_path, header, error):
    """What a file may say of its array, and nothing else: no text of it is evaluated."""
    values = np.array([[1], [2]], np.float32)
    text = header.encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + values.tobytes())
    if error:
        with pytest.raises(ValueError, match=re.escape(error)):
            read_numpy(tmp_path / "x.npy")
    else:
        np.testing.assert_array_equal(read_numpy(tmp_path / "x.npy")[""], values)
