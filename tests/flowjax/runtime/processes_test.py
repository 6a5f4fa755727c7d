"""What processes tell each other, in a job of one. Several processes: tests/experiments/common/multihost_test.py."""

import pathlib

import pytest

from flowjax.runtime import processes


def test_a_job_of_one_calls_plainly() -> None:
    assert processes.is_first()
    assert processes.gather("ä") == ["ä"]
    assert processes.of_first(lambda: {"a": [1, None]}) == {"a": [1, None]}
    processes.check_same({"a": 1})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        processes.together(lambda: pathlib.Path("/nowhere").read_text())


def test_differences_are_named_by_key() -> None:
    a = {"same": (1, 2), "model": {"size": "B/1", "remat": "dots"}, "gone": 1}
    b = {"same": [1, 2], "model": {"size": "XL/1", "remat": "dots"}}
    assert list(processes.differences(a, b)) == [("gone", 1, None), ("model.size", "B/1", "XL/1")]
