"""Groups of near-duplicates: the turning point between them is that of their centres."""

import dataclasses

import numpy as np
import pytest

from flowjax import stages
from flowjax.analysis import near_duplicates
from flowjax.analysis.groups import decisive, grouped_turning_points
from flowjax.analysis.near_duplicates import Groups, find_groups
from flowjax.oracle import Oracle


def clusters(count: int, size: int, d: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres, and near-duplicates of each at this distance from one another, of the centres' own distances."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((count, d)).astype(np.float32)
    return centers, np.repeat(centers, size, 0) + distance * rng.standard_normal((count * size, d)).astype(np.float32)


@pytest.mark.parametrize("distance", [1e-3, 0.1])
def test_between_groups_it_turns_where_their_centres_do(distance: float) -> None:
    centers, data = clusters(150, 4, 48, distance)
    groups = find_groups(data)
    assert groups is not None
    assert (groups.of[-1] == np.repeat(groups.of[-1][::4], 4)).all()
    assert groups.of[-1].max() == 149
    turns = grouped_turning_points(data, groups, num_queries=512)
    alone = Groups(np.ones(1), np.arange(150)[None], 1.0)
    truth = grouped_turning_points(centers, alone, num_queries=512)[0].turning_point.measured
    assert truth is not None
    assert turns[-1].turning_point.measured == pytest.approx(truth, rel=0.05)
    assert turns[-1].predicted.t == pytest.approx(truth, rel=0.08)
    assert turns[0].turning_point.measured > 1.5 * truth
    assert [turn.share for turn in turns] == sorted(turn.share for turn in turns)
    assert 0 < decisive(turns).delta <= groups.delta[-1]


def test_between_samples_it_turns_where_the_oracle_says() -> None:
    _, data = clusters(60, 2, 24, 0.05)
    groups = find_groups(data)
    assert groups is not None
    raw = grouped_turning_points(data, groups, num_queries=512)[0].turning_point
    measured = stages.measure_turning_point(Oracle(data), num_queries=512)
    assert raw.ci_low < measured.measured < raw.ci_high


def test_a_chain_of_neighbours_is_one_group_and_classes_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(np.full((30, 1), 0.02), 0) * np.ones((1, 40)) / np.sqrt(40)  # a film: each frame near the next
    data = np.concatenate([steps, 3 + rng.standard_normal((30, 40))]).astype(np.float32)
    monkeypatch.setattr(near_duplicates, "_FIRST", 2)  # so that more neighbours have to be asked for
    groups = find_groups(data)
    assert groups is not None
    assert [len(members) for members in groups.largest(3)] == [30]
    halves = find_groups(data, np.r_[np.zeros(15, int), np.ones(15, int), np.zeros(30, int)])
    assert [len(members) for members in halves.largest(3)] == [15, 15]


def test_data_without_near_duplicates_have_no_groups() -> None:
    assert find_groups(np.random.default_rng(0).standard_normal((200, 30))) is None
    assert find_groups(np.ones((5, 3))) is None


def test_the_decisive_delta_is_the_first_from_which_on_nothing_changes() -> None:
    _, data = clusters(60, 2, 24, 0.05)
    turns = grouped_turning_points(data, find_groups(data), num_queries=64)
    turn = stages.TurningPoint(0.3, 0.28, 0.32)
    told = [
        dataclasses.replace(turns[0], delta=float(k), turning_point=dataclasses.replace(turn, measured=t))
        for k, t in enumerate([0.9, 0.31, 0.5, 0.3, 0.3])
    ]
    assert decisive(told).delta == 3
