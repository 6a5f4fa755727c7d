"""Training batches: a function of seed and step alone, whatever the number of processes, and whenever it was interrupted."""

import contextlib

import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

from flowjax.data import DataSet
from flowjax.data.pipeline import Batches
from flowjax.data.records import Records
from tests.flowjax.data.thirteen_images import CLASSES, IMAGES, N, records


def same(one, other) -> None:
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.label, other.label)


@given(size=st.integers(1, 30), seed=st.integers(0, 2**40), first=st.integers(0, 5))
def test_every_epoch_holds_every_sample_once_and_epochs_follow_without_gaps(size, seed, first):
    batches = Batches(records(), size, seed=seed)
    indices = np.concatenate([batches.index(step) for step in range(first + 3 * N // size + 2)])
    for epoch in range(3):
        assert sorted(indices[epoch * N : (epoch + 1) * N]) == list(range(N))
    assert not np.array_equal(indices[:N], indices[N : 2 * N])


@given(share=st.integers(1, 5), processes=st.sampled_from([1, 2, 3, 4]), step=st.integers(0, 50))
def test_the_processes_put_together_the_batch_of_one(share, processes, step):
    settings = {"batch_size": share * processes, "seed": 3, "flips": True, "label_dropout": 0.4}
    whole = Batches(records(), **settings)[step]
    parts = [Batches(records(), process_index=p, process_count=processes, **settings)[step] for p in range(processes)]
    np.testing.assert_array_equal(np.concatenate([part.data for part in parts]), whole.data)
    np.testing.assert_array_equal(np.concatenate([part.label for part in parts]), whole.label)


def test_half_of_all_samples_are_mirrored_along_the_width_or_replaced_by_the_stored_mirror_image():
    stored = 255 - IMAGES
    plain, flipped, own = (
        np.concatenate([Batches(records(mirrored=mirrored), N, seed=1, flips=flips)[step].data for step in range(40)])
        for flips, mirrored in ((False, "by width"), (True, "by width"), (True, stored))
    )
    turned = (flipped != plain).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped[turned], plain[turned][:, :, ::-1])
    np.testing.assert_array_equal(own[turned], 255 - plain[turned])
    np.testing.assert_array_equal(own[~turned], plain[~turned])
    assert abs(turned.mean() - 0.5) < 0.1


def test_dropped_labels_become_the_null_label_at_their_rate():
    batches = Batches(records(), 500, seed=0, label_dropout=0.1)
    labels = np.concatenate([batches[step].label for step in range(8)])
    kept = np.concatenate([Batches(records(), 500, seed=0)[step].label for step in range(8)])
    assert batches.null_label == CLASSES
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels[labels < CLASSES], kept[labels < CLASSES])
    assert abs((labels == CLASSES).mean() - 0.1) < 0.02


def test_data_without_labels_and_data_sets_in_memory():
    values = np.random.default_rng(0).standard_normal((5, 7), np.float32)
    batches = Batches(DataSet("rows", values), 5, seed=0)
    assert batches[0].label is None
    np.testing.assert_array_equal(batches.normalization(batches[0].data), values[batches.index(0)])


def test_an_interrupted_stream_goes_on_where_it_was(tmp_path):
    batches = Batches(records(), 4, seed=5, flips=True, label_dropout=0.2)
    with contextlib.closing(batches.iterate()) as stream:
        for step in range(6):
            same(next(stream), batches[step])
        ocp.save_checkpointables(tmp_path / "checkpoint", {"data": stream, "meta": {"step": 6}})
        same(next(stream), batches[6])
    with contextlib.closing(batches.iterate()) as fresh:
        ocp.load_checkpointables(tmp_path / "checkpoint", {"data": fresh})
        same(next(fresh), batches[6])
        assert isinstance(fresh, grain.DatasetIterator)
        fresh.set_state({"next_index": 2})
        same(next(fresh), batches[2])
    with contextlib.closing(batches.iterate(start=9)) as later:
        same(next(later), batches[9])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 6, "process_count": 4}, "batch_size=6: expected a multiple of the 4 processes"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
        ({"label_dropout": 1.5}, "label_dropout=1.5"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Batches(records(), **{"batch_size": 4, "seed": 0, **settings})


def test_labels_and_mirror_images_that_are_not_there_cannot_be_asked_for():
    with pytest.raises(ValueError, match="no labels to drop"):
        Batches(records(labels=None), 4, seed=0, label_dropout=0.1)
    with pytest.raises(ValueError, match="neither"):
        Batches(Records("rows", np.ones((4, 5), np.float32)), 4, seed=0, flips=True)
    with pytest.raises(ValueError, match="mirror images have shape"):
        records(mirrored=IMAGES[:, :1])
