"""PyTorch's files, read without PyTorch. Those in tests/files were written by PyTorch 2.13 (`make_torch_files.py` there)."""

import io
import mmap
import pathlib
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.data.formats.torch_file import read_torch

FILES = pathlib.Path(__file__).parents[3] / "files"
GRID = np.arange(24).reshape(2, 3, 4)


def archive(path: pathlib.Path, program: bytes, storages: dict[str, bytes] | None = None, compress: bool = False) -> pathlib.Path:
    """A file in `torch.save`'s layout, around any program."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", program)
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return path


def tensor_program(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The program of `{"x": tensor}`, as PyTorch writes it: protocol 2, a persistent reference to the storage."""
    numbers = {
        name: b"".join(b"J" + n.to_bytes(4, "little", signed=True) for n in value) for name, value in (("size", size), ("stride", stride))
    }
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ" + count.to_bytes(4, "little") + b"tQ"
    )
    rebuilt = storage + b"J" + offset.to_bytes(4, "little", signed=True) + b"(" + numbers["size"] + b"t(" + numbers["stride"] + b"t"
    return b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n(" + rebuilt + b"\x89ccollections\nOrderedDict\n)RtRs."


def test_every_dtype_has_its_values():
    found = read_torch(FILES / "dtypes.pt")
    assert len(found) == 16
    for name, array in found.items():
        assert array.dtype == np.dtype(getattr(ml_dtypes, name, name if name != "bool" else bool)), name
        np.testing.assert_array_equal(array.astype(np.float64) if name != "complex64" else array.real, GRID % 2)
    assert not found["float32"].flags.writeable


def test_views_share_storages_and_keep_their_strides():
    found, whole = read_torch(FILES / "views.pt"), np.arange(12, dtype=np.float32)
    expected = {
        "transposed": whole.reshape(3, 4).T,
        "part": whole[5:9],
        "every_other": whole[::2],
        "broadcast": np.zeros(3),
        "scalar": whole[7],
        "none": np.zeros((0, 3)),
        "same": whole,
    }
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert np.shares_memory(found["same"], found["part"])


def test_nested_state_dicts_and_parameters():
    found = read_torch(FILES / "module.pt")
    np.testing.assert_array_equal(found["ema"]["0.weight"], np.arange(6).reshape(2, 3) / 8)
    np.testing.assert_array_equal(found["model"]["0.weight"], found["ema"]["0.weight"])
    assert found["ema"]["1.num_batches_tracked"] == 0


def test_plain_values_are_let_in_where_they_are_asked_for():
    with pytest.raises(ValueError, match=r"\['steps'\] is the int 7, not a tensor"):
        read_torch(FILES / "with_plain_values.pt")
    found = read_torch(FILES / "with_plain_values.pt", plain=True)
    assert found["steps"] == 7
    assert found["opt"]["param_groups"][0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("malicious.pt", "nothing of it was run"),
        ("with_an_object.pt", "holds a argparse.Namespace"),
        ("bare_tensor.pt", "expected a dictionary of tensors"),
        ("legacy.pt", "before PyTorch 1.6"),
        ("torchscript.pt", "TorchScript"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_what_is_not_a_dictionary_of_tensors_is_refused_in_one_line(name, message, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        read_torch(FILES / name, plain=plain)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_called_one(tmp_path):
    (tmp_path / "weights.pt").write_bytes(pickle.dumps({"x": [1.0]}))
    with pytest.raises(ValueError, match="is a pickle of Python objects, and nothing is unpickled here"):
        read_torch(tmp_path / "weights.pt")


def test_the_malicious_file_does_run_what_it_holds_where_it_is_unpickled(tmp_path, monkeypatch):
    """The trap itself: without this, the test above would show nothing."""

    class Careless(pickle.Unpickler):
        def persistent_load(self, reference):
            return None

        def find_class(self, module, name):
            return (lambda *_: None) if module.startswith("torch") else super().find_class(module, name)

    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(FILES / "malicious.pt") as file:
        program = next(name for name in file.namelist() if name.endswith("data.pkl"))
        Careless(io.BytesIO(file.read(program))).load()
    assert (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\nX\x0d\x00\x00\x00touch was_run\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0dtouch was_run\x85R.",
        b"(X\x0d\x00\x00\x00touch was_runiposix\nsystem\n.",
        b"(cposix\nsystem\nX\x0d\x00\x00\x00touch was_runo.",
        b"ccollections\nOrderedDict\n)\x81}b.",
        b"\x80\x02\x82\x01.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__NsbX\x01\x00\x00\x00x\x85R.",
        b"ctorch\nFloatStorage\n)R.",
        b"X\x01\x00\x00\x00x)R.",
        b"Ncposix\nsystem\nQ.",
        b"}]N]ssR.",
        b"0",
        b"h\x05.",
        b"t.",
        b"}",
        b"",
        b"\xff\xfe",
    ],
)
def test_hostile_and_broken_programs_run_nothing(program, tmp_path, monkeypatch):
    path = archive(tmp_path / "x.pt", program)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"x\.pt: not read") as error:
        read_torch(path)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


@settings(max_examples=100)
@given(data=st.data())
def test_programs_damaged_anywhere_are_refused_or_hold_tensors(data, tmp_path_factory):
    program = bytearray(tensor_program(6, (2, 3), (3, 1)))
    place = data.draw(st.integers(0, len(program) - 1))
    program[place] = data.draw(st.integers(0, 255))
    path = archive(tmp_path_factory.mktemp("damaged") / "x.pt", bytes(program), {"0": np.arange(6, dtype="<f4").tobytes()})
    try:
        found = read_torch(path)
    except ValueError as error:
        assert "x.pt: not read" in str(error)  # noqa: PT017 - either answer is right
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize("compress", [False, True])
def test_large_storages_are_mapped_and_compressed_ones_read(tmp_path, compress):
    values = np.random.default_rng(0).standard_normal(2**19).astype("<f4")
    path = archive(tmp_path / "x.pt", tensor_program(len(values), (2**18, 2), (2, 1)), {"0": values.tobytes()}, compress)
    found = read_torch(path)["x"]
    np.testing.assert_array_equal(found, values.reshape(-1, 2))
    root = found
    while isinstance(root.base, np.ndarray):
        root = root.base
    assert isinstance(getattr(root.base, "obj", None), mmap.mmap) is not compress


@pytest.mark.parametrize(
    ("size", "stride", "offset", "message"),
    [
        ((2, 4), (4, 1), 0, "beyond its storage"),
        ((2, 3), (3, 1), 1, "beyond its storage"),
        ((2, 3), (3,), 0, "cannot be"),
        ((2, 3), (-3, 1), 0, "cannot be"),
        ((-2, 3), (3, 1), 0, "cannot be"),
        ((2, 3), (3, 1), -1, "cannot be"),
        ((2**30, 2**30), (2**30, 1), 0, "beyond its storage"),
    ],
)
def test_tensors_never_reach_beyond_their_storage(tmp_path, size, stride, offset, message):
    storage = {"0": np.arange(6, dtype="<f4").tobytes()}
    with pytest.raises(ValueError, match=message):
        read_torch(archive(tmp_path / "x.pt", tensor_program(6, size, stride, offset), storage))


def test_files_that_are_not_whole(tmp_path):
    storage = {"0": np.arange(6, dtype="<f4").tobytes()}
    with pytest.raises(ValueError, match="too few for 7 elements"):
        read_torch(archive(tmp_path / "x.pt", tensor_program(7, (2, 3), (3, 1)), storage))
    with pytest.raises(ValueError, match="damaged"):
        read_torch(archive(tmp_path / "x.pt", tensor_program(6, (2, 3), (3, 1))))
    whole = (FILES / "latents_stats.pt").read_bytes()
    for kept in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"cut\.pt: not read: .*damaged"):
            read_torch(tmp_path / "cut.pt")
    flipped = bytearray(whole)
    flipped[whole.index(np.linspace(-1, 1, 32).astype("<f4").tobytes()[:8])] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    with pytest.raises(ValueError, match="damaged"):
        read_torch(tmp_path / "flipped.pt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        read_torch(tmp_path / "nowhere.pt")
    shutil.copy(FILES / "views.pt", tmp_path / "copy.pt")
    assert len(read_torch(tmp_path / "copy.pt")) == 7
