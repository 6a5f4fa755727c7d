"""Patch fields of images that stay on disk, and of images that processes share, against those of images in memory and loops."""

import pathlib
import re

import jax
import numpy as np
import pytest

from flowjax.analytic import patch, patch_from_source
from kernels.patches.images import PatchSource
from kernels.patches.reference import patch_means_ref
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, error, images, queries
from tests.two_processes import run_two

SMALL = 90_000
"""Bytes that hold 24 of the 30 images at a time, and some of the queries."""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> np.ndarray:
    np.save(tmp_path / "images.npy", images())
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def test_images_in_a_file_give_the_predictions_of_the_definition(file: np.ndarray) -> None:
    y, order = images(), np.random.default_rng(2).permutation(30)
    mixed = np.asarray(file)[order]  # classes lie scattered
    for source, labels in ((file, LABELS), (mixed, LABELS[order])):
        for size, anywhere, budget in ((3, False, SMALL), (3, True, 2**24)):
            field = patch_from_source(source, labels, size=size, anywhere=anywhere, budget=budget)
            x, t = queries(y, PATHS[0], 0.4), 0.4
            settings = {"size": size, "anywhere": anywhere, "position": True}
            of = [y if c < 0 else y[c == LABELS] for c in ASKED]
            wanted = np.stack(
                [
                    patch_means_ref(own, one, float(np.float32(t)), 1 - float(np.float32(t)), **settings)
                    for own, one in zip(of, x, strict=True)
                ]
            )
            assert error(field.denoised(x, t, ASKED), wanted) < 1e-5


def test_a_small_budget_takes_several_chunks_and_readings(file: np.ndarray) -> None:
    y = images()
    x = np.concatenate([queries(y, PATHS[0], 0.5)] * 6)
    field = patch_from_source(file, size=3, budget=SMALL)
    assert isinstance(field._images, PatchSource)
    assert [int(part.filled.sum()) for part in field._images.parts(-1)] == [24, 6]
    assert field._images.queries < len(x)
    np.testing.assert_allclose(field(x, 0.5), patch(y, size=3)(x, 0.5), rtol=1e-6, atol=1e-6)
    jitted = jax.jit(lambda x: field(x, 0.5))(x)  # the host reads, outside of JAX: a compiled program may call it
    np.testing.assert_allclose(jitted, field(x, 0.5), rtol=1e-6)


def test_bytes_are_read_as_they_are(tmp_path: pathlib.Path) -> None:
    y = np.random.default_rng(0).integers(0, 256, (20, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "images.npy", y)
    x = np.asarray(y[:2], np.float32) * np.float32(0.5) + 1
    given = patch_from_source(np.load(tmp_path / "images.npy", mmap_mode="r"), size=3, budget=SMALL)
    np.testing.assert_allclose(given.denoised(x, 0.5), patch(y, size=3).denoised(x, 0.5), rtol=1e-6)


def test_wrong_sources_are_refused_in_a_line(file: np.ndarray, tmp_path: pathlib.Path) -> None:
    bad = images()
    bad[7, 0, 0, 0] = np.nan
    for arguments, told in (
        ({"source": file, "budget": 1000}, r"budget=1,000 bytes is too small for 30 images of 40 numbers: give at least "),
        ({"source": bad}, "NaN or infinity, first in the sample at index 7"),
        ({"source": file, "labels": LABELS[:5]}, "labels"),
        ({"source": file, "borders": "zeros"}, "borders = 'zeros'"),
        ({"source": file, "size": 4}, "expected an odd number of pixels"),
        ({"source": 3}, "source must be a path, Records or an array-like"),
        ({"source": np.zeros((3, 2, 2, 2, 2), np.float32)}, "expected images"),
    ):
        with pytest.raises(ValueError, match=told):
            patch_from_source(**{"size": 3, **arguments})  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        patch_from_source(tmp_path / "nowhere.npy", size=3)
    least = re.search(r"at least ([\d,]+)", str(_refused(file)))
    assert least is not None
    patch_from_source(file, size=3, budget=int(least[1].replace(",", "")))  # what is asked for is enough


def _refused(file: np.ndarray) -> ValueError:
    with pytest.raises(ValueError, match="too small") as found:
        patch_from_source(file, size=3, budget=1000)
    return found.value


WORKER = """
import sys
import jax
port, number, path = sys.argv[1:]
jax.distributed.initialize(coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=int(number))
import numpy as np
from flowjax.analytic import patch, patch_from_source
from kernels.posterior.distributed.sharded import rows_of_process, shard_samples
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, images, queries
own = slice(0, 18) if number == "0" else slice(18, 30)  # classes 0 and part of 1; the rest of 1 and 2
x = queries(images(), PATHS[0], 0.4)
field = patch(images()[own], LABELS[own], size=3, anywhere=True, shared=True)
found = np.asarray(field(x, 0.4, ASKED))
other = patch_from_source(images()[own], LABELS[own], size=3, anywhere=True, shared=True)
assert (np.asarray(other(x, 0.4, ASKED)) == found).all()
mesh = jax.make_mesh((2, 1), ("samples", "queries"))
rows = rows_of_process(30, mesh)
devices = patch(shard_samples(images()[rows], mesh, labels=LABELS[rows], n=30), size=3, anywhere=True)
assert devices.classes == field.classes
assert abs(np.asarray(devices(x, 0.4, ASKED)) - found).max() < 1e-5
def refused(kind, told, call):
    try:
        call()
    except kind as error:
        assert told in str(error), error
    else:
        raise AssertionError(told)
refused(NotImplementedError, "runs outside of jit", lambda: jax.jit(lambda x: field(x, 0.4))(x))
refused(ValueError, "has no samples", lambda: field(x, 0.4, ASKED + 3))
refused(ValueError, "start all processes alike", lambda: patch(images()[own], size=3, anywhere=number == "0", shared=True))
bad = images()[own]
bad[0] = np.nan if number == "1" else 0
refused(ValueError, "not finite", lambda: patch(bad, size=3, shared=True))
np.save(f"{path}_{number}.npy", found)
"""


@pytest.mark.slow
def test_two_processes_that_hold_a_part_of_the_images_each(tmp_path: pathlib.Path) -> None:
    run_two(WORKER, tmp_path / "out", tmp_path, devices=1)
    first, second = (np.load(tmp_path / f"out_{i}.npy") for i in range(2))
    np.testing.assert_array_equal(first, second)
    wanted = np.asarray(patch(images(), LABELS, size=3, anywhere=True)(queries(images(), PATHS[0], 0.4), 0.4, ASKED))
    assert error(first, wanted) < 1e-6
