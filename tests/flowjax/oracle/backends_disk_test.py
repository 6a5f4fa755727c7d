"""`Oracle.from_source`: data that stay on disk give the answers of data in memory, within a memory budget."""

import inspect
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from flowjax import data as data_sources
from flowjax.data.formats.file_rows import FlatFile, RecordSource, runs, unmapped
from flowjax.oracle import Oracle
from tests import float64_oracle as exact
from tests.xla_flags import xla_flags

N, SHAPE, B = 3001, (4, 4, 4), 24
SMALL = 13 * 2**17
"""Bytes: the samples then make four chunks, the last of them not full."""


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Clusters, twelve exact copies, and a class (9) of five samples only."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, *SHAPE))
    labels = np.arange(N) * 7 % 9
    labels[11::600] = 9
    data = centres[labels % 40] + 0.3 * rng.standard_normal((N, *SHAPE))
    data[100:112] = data[100]
    return data.astype(np.float32), labels.astype(np.int32)


@pytest.fixture(scope="module")
def npy(samples, tmp_path_factory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("source") / "samples.npy"
    np.save(file, samples[0])
    return file


@pytest.fixture(scope="module")
def oracles(samples, npy) -> tuple[Oracle, Oracle]:
    """In memory, and from a memory map."""
    return Oracle(*samples), Oracle.from_source(np.load(npy, mmap_mode="r"), samples[1], budget=SMALL)


T = np.resize([0, 0.001, 0.4, 0.8, 0.9, 0.999, 1.0], B).astype(np.float32)
"""Navigation, refinement, what float32 cannot settle, and the limit at t = 1, which is another program: here all ask for it."""


def queries(data: np.ndarray, t: np.ndarray = T, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.reshape(t, (-1, *[1] * len(SHAPE)))
    y = data[rng.integers(len(data), size=B)]
    y[0] = data[100]
    return (t * y + (1 - t) * rng.standard_normal(y.shape)).astype(np.float32)


def same(found, expected) -> None:
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if value is None:
            assert other is None
        elif value.dtype == jnp.int32:
            np.testing.assert_array_equal(other, value, err_msg=name)
        else:
            scale = max(1.0, float(np.abs(np.nan_to_num(np.asarray(value), posinf=0, neginf=0)).max()))
            np.testing.assert_allclose(other, value, rtol=5e-5, atol=5e-6 * scale, err_msg=name)


@pytest.mark.parametrize("labelled", ["each its own", "none", "a rare class"])
def test_the_answer_is_that_of_data_in_memory(oracles, samples, labelled):
    """Every output at every t; of all samples, and of classes."""
    memory, disk = oracles
    own = np.random.default_rng(1).integers(-1, 9, B).astype(np.int32)
    label = {"none": None, "each its own": own, "a rare class": np.full(B, 9, np.int32)}[labelled]
    x = queries(samples[0])
    same(disk(x, T, label), memory(x, T, label))


def exactly(oracle: Oracle, data: np.ndarray) -> None:
    """Against float64 from differences, within the contract's 1e-5, at every t below 1."""
    x, inside = queries(data), T < 1
    true = exact.oracle(data, x[inside], T[inside]).velocity
    error = np.linalg.norm((np.asarray(oracle(x, T).velocity)[inside] - true).reshape(len(true), -1), axis=1)
    assert (error <= 1e-5 * np.linalg.norm(true.reshape(len(true), -1), axis=1)).all()


def test_the_velocity_is_exact(oracles, samples):
    """A t for each query."""
    exactly(oracles[1], samples[0])


@pytest.mark.slow
def test_queries_that_do_not_fit_the_budget_take_several_passes(oracles, samples):
    """In the caller's order, and the last pass not full."""
    disk = oracles[1]
    count = disk._backend.chunks.sizes.queries
    assert 1 < count < 100  # else this shows nothing
    x = np.concatenate([queries(samples[0], seed=seed) for seed in range(100 // B + 1)])[:100]
    parts = [disk(x[start : start + B], T) for start in range(0, 96, B)]
    whole = disk(x, np.resize(T, 100))
    for name, value in vars(whole).items():
        np.testing.assert_allclose(value[:96], np.concatenate([getattr(part, name) for part in parts]), rtol=1e-5, atol=1e-4, err_msg=name)


def test_a_path_or_records_give_the_values_and_labels_that_load_gives(samples, tmp_path):
    """Two safetensors shards of latents with labels, normalised by their statistics; and one class of them."""
    for part, rows in enumerate((slice(0, 2000), slice(2000, N))):
        tensors = {"latents": np.moveaxis(samples[0][rows], -1, 1).copy(), "labels": samples[1][rows].astype(np.int64)}
        save_file(tensors, tmp_path / f"latents_rank00_shard{part:03d}.safetensors")
    loaded = data_sources.load("latents", path=str(tmp_path))
    disk = Oracle.from_source(tmp_path, budget=SMALL)
    x, label = queries(loaded.data), np.full(B, 3)
    same(disk(x, T, label), Oracle(loaded.data, loaded.labels)(x, T, label))
    few = RecordSource(data_sources.open_records("latents", path=str(tmp_path), classes=[3]))
    out, index = np.empty((40, 64), np.float32), np.arange(7, 47)
    few.read(index, out)
    np.testing.assert_array_equal(out, loaded.data[loaded.labels == 3][index].reshape(40, 64))


@pytest.mark.parametrize("dtype", ["float64", pytest.param("uint8", marks=pytest.mark.slow)])
def test_array_likes_of_any_real_dtype_that_know_slices_only(samples, dtype):
    """As an HDF5 data set does; float64 becomes float32, bytes stay bytes."""
    data = ((40 * samples[0] + 128).clip(0, 255) if dtype == "uint8" else samples[0]).astype(dtype)

    class Sliced:
        shape, dtype = data.shape, data.dtype

        def __getitem__(self, rows: slice) -> np.ndarray:
            assert isinstance(rows, slice)
            return data[rows]

    kept = data.astype(np.float32)
    exactly(Oracle.from_source(Sliced(), budget=SMALL), kept)


def test_maps_are_read_through_their_files(npy, samples, tmp_path):
    """Views of a map too; a map whose changes live in memory alone is left as it is, or they would be lost."""
    view = unmapped(np.load(npy, mmap_mode="r")[5:, :, 1:3][:, :, :, :].base[7:1000])
    assert isinstance(view, FlatFile)
    np.testing.assert_array_equal(view[np.array([3, 900, 3])], samples[0][7:1000][[3, 900, 3]])
    private = np.load(npy, mmap_mode="c")
    assert unmapped(private) is private
    assert list(runs(np.array([0, 1, 2, 5, 7, 8]))) == [(0, 3), (3, 4), (4, 6)]
    assert list(runs(np.array([], np.int64))) == []


def test_a_file_that_is_cut_short_meanwhile_is_said_in_one_line(samples, tmp_path):
    """A map of it would kill the process."""
    file = tmp_path / "cut.npy"
    np.save(file, samples[0])
    disk = Oracle.from_source(np.load(file, mmap_mode="r"), budget=SMALL)
    with open(file, "r+b") as handle:
        handle.truncate(file.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"cut\.npy: cut short: it ends at byte 384,\d+ where 768,\d+ were.*copy or write it again$"):
        disk(queries(samples[0]), T)


def test_nan_in_the_data_is_found(samples, tmp_path):
    data = samples[0].copy()
    data[2000, 1, 2, 3], data[2500] = np.nan, np.inf
    with pytest.raises(ValueError, match="NaN or infinity in 2 of 3001 samples, the first at index 2000"):
        Oracle.from_source(data, budget=SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": [[1.0]]}, "source must be a path, Records or an array-like with shape, dtype and slices; got list"),
        ({"source": np.zeros(3)}, r"source must hold real numbers \[N, \*shape\], at least one; got float64 of shape \(3,\)"),
        ({"source": np.zeros((3, 2), complex)}, "got complex128"),
        ({"labels": np.zeros(4, int)}, r"labels have shape \(4,\), expected \(3,\)"),
        ({"labels": np.array([0, 1, -1])}, "labels span"),
        ({"budget": 1000}, "budget=1,000 bytes is too small for 3 samples of 2 numbers: give at least"),
        ({"path": "linear"}, "path must be a flowjax.path.Path, got 'linear'"),
        ({"precision": "exact"}, "precision must be one of"),
    ],
)
def test_wrong_input_is_refused_in_one_line(change, message):
    settings = {"source": np.zeros((3, 2), np.float32)} | change
    with pytest.raises(ValueError, match=message) as error:
        inspect.unwrap(Oracle.from_source.__func__)(Oracle, **settings)  # without the tests' own check of types
    assert "\n" not in str(error.value)


def test_an_oracle_from_disk_refuses_tracing_in_one_line(oracles, samples):
    """Under tracing, as an argument or in a closure; and what needs the data."""
    disk, x = oracles[1], queries(samples[0])
    for call in (
        lambda: jax.jit(lambda x: disk(x, 0.5))(x),
        lambda: jax.jit(lambda o, x: o(x, 0.5))(disk, x),
        lambda: jax.grad(lambda x: disk(x, 0.5).velocity.sum())(jnp.asarray(x)),
        lambda: jax.vmap(lambda t: disk(x, t))(jnp.array([0.1, 0.2])),
        lambda: disk.jvp(x, 0.5, x),
        disk.unique,
        lambda: disk.data,
    ):
        with pytest.raises(NotImplementedError, match="an oracle from a source"):
            call()


def test_an_oracle_from_a_source_knows_what_it_is(oracles, samples):
    memory, disk = oracles
    assert (disk.path, disk.conditional, disk.counts, disk.mesh) == (memory.path, True, None, None)
    assert disk.implementation == "disk"
    np.testing.assert_array_equal(disk.labels, samples[1])
    with pytest.raises(ValueError, match="label 12 has no samples"):
        disk(queries(samples[0]), T, 12)


def test_progress_wraps_the_chunks_of_the_first_reading(npy):
    seen = []

    def progress(chunks):
        for chunk in chunks:
            seen.append(chunk)
            yield chunk

    Oracle.from_source(npy, budget=SMALL, progress=progress)
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7]


MEASURE = """
import os
import re, sys
import numpy as np
from flowjax.oracle import Oracle
file, budget = sys.argv[1], int(sys.argv[2])
oracle = Oracle.from_source(file, budget=budget)
x = np.random.default_rng(0).standard_normal((16, 1024)).astype(np.float32)
for t in (0.1, 0.9):
    assert np.isfinite(np.asarray(oracle(x, t).denoised)).all()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_budget_is_kept(tmp_path):
    """The whole process, JAX and its compiler included, stays below the budget and 300 MB; the file is twice the budget.

    JAX takes 225 MB of the 300, and compiling up to 80 more at a time, which a much smaller budget would not hold.
    """
    budget, d = 224 * 2**20, 1024
    n = 2 * budget // (4 * d)
    rows = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(n, d))
    block = np.random.default_rng(1).standard_normal((1024, d), np.float32)
    for start in range(0, n, 1024):
        rows[start : start + 1024] = block[: n - start] + np.float32(start / n)
    rows.flush()
    # As a user's process: without the tests' cache of compiled programs, which would be written from memory, and their eight devices.
    plain = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"} | {"XLA_FLAGS": xla_flags(1)}
    plain["JAX_PLATFORMS"] = "cpu"  # where libtpu is installed, JAX would load it to look for a TPU
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large.npy"), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 <= budget + 300 * 10**6
