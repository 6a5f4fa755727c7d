"""Copies: planted ones are counted, unseen data give none, and near-duplicates of the training set hide nothing."""

import numpy as np
import pytest

from flowjax.metrics import copying
from flowjax.metrics.copying import COPY_RATIO, Pooling, excess, nearest, pooled, pooling, ranks, threshold
from flowjax.metrics.neighbours import NeighbourSearch, Rows

ALL = Pooling(1, 1)


def test_a_copy_of_near_duplicates_is_found_whichever_of_them_is_nearer() -> None:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((60, 24)).astype(np.float32)
    training = np.repeat(centers, 7, axis=0) + 0.01 * rng.standard_normal((420, 24)).astype(np.float32)  # seven near-duplicates each
    copies = training[::7] + 0.02 * rng.standard_normal((60, 24)).astype(np.float32)
    unseen = rng.standard_normal((60, 24)).astype(np.float32)
    found = nearest(NeighbourSearch(Rows.of(training)), np.concatenate([copies, unseen]))
    assert (found.row[:60] // 7 == np.arange(60)).all()
    assert (found.twins[:60] == 6).all()
    assert (found.ratio[:60] < 0.1).all()
    assert np.median(found.ratio[60:]) > 0.8
    distances = np.sqrt(((unseen[:, None].astype(np.float64) - training[None]) ** 2).sum(2)).reshape(60, 60, 7).min(2)
    np.testing.assert_allclose(found.distance[60:], distances.min(1), rtol=1e-6)
    np.testing.assert_allclose(found.second[60:], np.sort(distances, axis=1)[:, 1], rtol=1e-6)


def test_exact_duplicates_count_once_and_distances_are_exact_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    training = (rng.standard_normal((200, 27)) + 1000).astype(np.float32)
    training[150] = training[3]
    samples = training[:20] + 1e-3 * rng.standard_normal((20, 27)).astype(np.float32)
    found = nearest(NeighbourSearch(Rows.of(training)), samples)
    distances = np.sqrt(((samples[:, None].astype(np.float64) - training[None]) ** 2).sum(2))
    np.testing.assert_array_equal(found.row, np.arange(20))
    np.testing.assert_allclose(found.distance, distances[np.arange(20), np.arange(20)], rtol=1e-9)
    distances[:, 150] = np.inf
    distances[np.arange(20), np.arange(20)] = np.inf
    np.testing.assert_allclose(found.second, distances.min(1), rtol=1e-9)
    assert found.below_a_third.all()


def test_mirror_images_are_found_and_said_to_be_mirrored() -> None:
    images = np.random.default_rng(0).standard_normal((80, 6, 6, 1)).astype(np.float32)
    samples = np.concatenate([images[:10], np.flip(images[10:20], 2)])
    found = nearest(NeighbourSearch(Rows.of(images)), pooled(samples, ALL), pooled(np.flip(samples, 2), ALL))
    np.testing.assert_array_equal(found.row, np.arange(20))
    np.testing.assert_array_equal(found.mirrored, np.arange(20) >= 10)
    assert (found.distance == 0).all()


def test_a_training_set_without_a_second_neighbour_is_refused() -> None:
    training = np.ones((5, 3), np.float32)
    with pytest.raises(ValueError, match="has no two that differ: expected a second neighbour"):
        nearest(NeighbourSearch(Rows.of(training)), np.zeros((2, 3), np.float32))


def test_the_threshold_passes_no_more_of_what_is_unseen_than_it_says() -> None:
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(300):
        one, two = 0.4 + 0.6 * rng.random((2, 999))
        passed.append(np.mean(two <= threshold(one)))
    assert np.mean(passed) == pytest.approx(copying.FALSE_POSITIVES, rel=0.15)  # 5 of 1,000, on average over both
    assert threshold(rng.random(1000) * 0.2) == COPY_RATIO  # near-duplicates of the training set: never below a third
    assert threshold(np.ones(50)) == COPY_RATIO  # too few to raise it
    np.testing.assert_allclose(ranks(np.array([0.0, 0.5, 2.0]), np.array([0.4, 0.5, 0.9])), [1 / 4, 3 / 4, 1])


@pytest.mark.parametrize(("copies", "unseen"), [(0.0, 0.005), (0.005, 0.005), (0.05, 0.08), (0.5, 0.3)])
def test_the_interval_of_the_share_of_copies_holds_the_truth_as_often_as_it_says(copies: float, unseen: float) -> None:
    rng = np.random.default_rng(0)
    flagged = rng.random((150, 1000)) < copies + (1 - copies) * unseen
    held = [excess(one, rng.random(1000) < unseen) for one in flagged]
    assert np.mean([one.low <= copies <= one.high for one in held]) >= 0.92
    assert np.mean([one.value for one in held]) == pytest.approx(copies, abs=0.005)


def test_pictures_are_averaged_over_squares_and_latents_are_not() -> None:
    shapes = ((28, 28, 1), (32, 32, 3), (64, 64), (256, 256, 3), (8, 8, 1), (33, 32, 3), (32, 32, 4), (90,))
    assert [pooling(shape) for shape in shapes] == [(2, 2), (2, 8), (4, 4), (16, 64), (1, 1), (1, 1), (1, 1), (1, 1)]
    image = np.arange(2 * 4 * 4 * 2, dtype=np.float32).reshape(2, 4, 4, 2)
    np.testing.assert_allclose(pooled(image, Pooling(2, 2)).reshape(2, 2, 2, 2)[1, 1, 0], image[1, 2:, :2].mean((0, 1)))
    grey = np.repeat(np.random.default_rng(0).standard_normal((3, 8, 8, 1)).astype(np.float32), 3, axis=3)
    found = pooled(grey, Pooling(1, 4))
    np.testing.assert_allclose(found[:, :64], grey[..., 0].reshape(3, 64), atol=1e-6)
    np.testing.assert_allclose(found[:, 64:], 0, atol=1e-5)
