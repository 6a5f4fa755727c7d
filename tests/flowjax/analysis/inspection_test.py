"""What inspection finds, against NumPy on the whole array; and that each thing people get wrong is warned of, and nothing else."""

import re

import numpy as np
import pytest

from flowjax import data
from flowjax.analysis.inspection import inspect
from flowjax.data import Records
from flowjax.data.normalization import BYTES

RNG = np.random.default_rng(0)
LATENTS = RNG.standard_normal((300, 4, 4, 8)).astype(np.float32)
GREY = np.concatenate([np.full((1, 4, 4, 1), 255, np.uint8), np.random.default_rng(1).integers(0, 255, (299, 4, 4, 1), dtype=np.uint8)])
LABELS = np.arange(300, dtype=np.int32) % 5


def warned(rows: np.ndarray = LATENTS, labels: np.ndarray | None = LABELS, **settings: object) -> list[str]:
    return inspect(Records("mine", rows, labels, **settings)).warnings


def test_statistics_are_those_of_all_samples():
    records = data.open_records("digits")
    found, values = inspect(records), records.load().data.astype(np.float64)
    assert (found.n, found.shape, found.d, found.low, found.high) == (1797, (8, 8, 1), 64, -1, 1)
    np.testing.assert_allclose([found.mean[0], found.std[0]], [values.mean(), values.std(ddof=1)], rtol=1e-9)
    np.testing.assert_array_equal(found.class_counts, np.bincount(records.labels))
    eigenvalues = np.linalg.eigvalsh(np.cov(values.reshape(1797, 64).T))[::-1]
    assert found.effective_dimension == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=0.01)
    assert found.components_for(0.9) == np.searchsorted(np.cumsum(eigenvalues) / eigenvalues.sum(), 0.9) + 1
    assert found.warnings == []


@pytest.mark.parametrize("n", [40, 300])
def test_the_effective_dimension_of_a_gaussian_is_that_of_its_covariance_however_few_samples_there_are(n):
    scales = np.array([4.0] * 3 + [1.0] * 60)
    squares = scales**2
    draws = [RNG.standard_normal((n, 63)) * scales for _ in range(20)]
    found = [inspect(Records("mine", draw.astype(np.float32))).effective_dimension for draw in draws]
    assert np.mean(found) == pytest.approx(squares.sum() ** 2 / (squares**2).sum(), rel=0.1)


def test_channels_are_told_apart_far_from_the_origin():
    rows = (LATENTS * np.arange(1, 9) + 1e4 * np.arange(8)).astype(np.float32)
    found = inspect(Records("mine", rows))
    np.testing.assert_allclose(found.mean, rows.astype(float).mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(found.std, rows.astype(float).std((0, 1, 2), ddof=1), rtol=1e-6)


def test_duplicates_are_counted_and_near_ones_found():
    rows, labels = np.tile(LATENTS[:100], (3, 1, 1, 1)), np.tile(LABELS[:100], 3)
    rows[200:] += RNG.standard_normal((100, 4, 4, 8)).astype(np.float32) * 0.05
    labels[107] += 1
    found = inspect(Records("mine", rows, labels))
    assert (found.duplicates, found.duplicates_across_classes) == (100, 1)
    assert found.near_duplicates == 1
    direct = np.sum((rows[found.nearest_pairs[:, 0]].astype(float) - rows[found.nearest_pairs[:, 1]]) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found.nearest, direct / (2 * found.eigenvalues.sum()), rtol=1e-6)
    assert set(found.nearest_pairs.ravel() // 100) == {0, 2}  # of equal samples the first
    assert any("100 samples repeat" in text for text in found.warnings)
    assert any("equal to one of another class" in text for text in found.warnings)
    assert any("near duplicate" in text for text in found.warnings)


def test_many_equal_samples_do_not_hide_the_nearest_other():
    rows = np.repeat(LATENTS[:4], 30, axis=0)
    squares = ((LATENTS[:4, None].astype(float) - LATENTS[None, :4]) ** 2).sum((2, 3, 4))
    np.fill_diagonal(squares, np.inf)
    found = inspect(Records("mine", rows))
    np.testing.assert_allclose(found.nearest * 2 * found.eigenvalues.sum(), np.sort(squares.min(1)), rtol=1e-6)


def test_good_data_are_not_warned_of():
    assert warned() == []
    assert warned(labels=None) == []
    assert warned(np.tanh(LATENTS[..., :3])) == []
    assert inspect(Records("mine", LATENTS, LABELS).subset(classes=(3,))).warnings == []
    assert warned(LATENTS.reshape(300, -1)) == []
    assert warned(np.repeat(GREY, 4, -1), normalization=BYTES) == []  # of four channels, and no latents
    assert warned((LATENTS[..., :3] > 0).astype(np.int8) * 2 - 1) == []


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (LATENTS * 3 + 1, LABELS, "look un-normalised"),
        (LATENTS + np.array([2.0] + [0] * 7, np.float32), LABELS, "look un-normalised: .* mean of channel 0 2.0"),
        (LATENTS[..., :4] * 5.4, LABELS, "set multiplier=0.18215"),
        (LATENTS * 0.18215, LABELS, "a multiplier on top of normalised latents"),
        (LATENTS, LABELS + 1, "1 of 6 classes have no sample: 0; labels count from 0"),
        (LATENTS, LABELS * 2, "4 of 9 classes have no sample: 1, 3, 5, 7$"),
        (
            LATENTS,
            np.where(LABELS == 4, 2**31 - 2, LABELS),
            "2,147,483,642 of 2,147,483,647 classes have no .*: 4, 5, 6, 7, 8, ...; number",
        ),
        (LATENTS, np.arange(300, dtype=np.int32), "are they indices"),
        (LATENTS, LABELS * 0, "one label"),
        (LATENTS, (np.arange(300, dtype=np.int32) > 290).astype(np.int32), "very different sizes, 9 to 291"),
        (np.clip(LATENTS[..., :3] * 0.2 + 0.5, 0, 1), LABELS, r"models are trained on \[-1, 1\]"),
        (np.round(np.clip(LATENTS[..., :3] * 50 + 128, 0, 255)), LABELS, "store them as uint8"),
        (GREY.astype(np.uint16) * 257, LABELS, r"\[0, 65535\], levels of 16 bits .*\(uint16\): store x / 32767.5 - 1 as float32"),
        (GREY.astype(np.float64) * 257, LABELS, "levels of 16 bits"),
        (GREY.astype(np.int64), LABELS, "store them as uint8"),
        ((GREY.astype(np.int16) - 128).astype(np.int8), LABELS, r"\(int8\): store x \+ 128 as uint8"),
        (GREY.astype(np.int16) * 128, LABELS, r"\(int16\): store x / 32767.5"),
        ((GREY.astype(np.int32) - 128) * 256, LABELS, r"\[-32768, 32512\], as they are \(int32\): .* scale them"),
        (np.repeat(GREY, 4, -1).astype(np.uint16), LABELS, "store them as uint8"),
        ((GREY / 255**2).astype(np.float16), LABELS, "divided twice"),
        (np.ascontiguousarray(LATENTS.transpose(0, 3, 1, 2))[:, :3], LABELS, "look channels-first"),
    ],
)
def test_what_people_get_wrong_is_warned_of(rows, labels, message):
    (text,) = warned(rows, labels)
    assert re.search(message, text), text


def test_nan_and_a_single_sample_are_errors():
    rows = LATENTS.copy()
    rows[17, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="sample 17 has NaN"):
        inspect(Records("mine", rows))
    with pytest.raises(ValueError, match="sample 0 has values too large for float32: scale the data"):
        inspect(Records("mine", LATENTS.astype(np.float64) * 1e300))
    with pytest.raises(ValueError, match="at least two"):
        inspect(Records("mine", LATENTS[:1]))
