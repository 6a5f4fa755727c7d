"""What processes tell each other, in a job of one; and the statuses by which a supervisor decides. Several processes: tests/experiments."""

import pathlib
import signal
import subprocess
import sys

import pytest

from flowjax.runtime import exit_codes, processes
from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.watchdog import Watchdog


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


@pytest.mark.parametrize(
    ("statuses", "job"),
    [
        ([0, 0], Exit.FINISHED),
        ([75, 75], Exit.STOPPED),
        ([76, -signal.SIGKILL, 76], 137),
        ([76, -signal.SIGABRT], 134),
        ([76, 2], Exit.USER_ERROR),
        ([74, 76], Exit.NOT_SAVED),
        ([76, 1], Exit.FAILED),
        ([0, 76], Exit.LOST_PEER),
    ],
)
def test_a_jobs_status_is_that_of_the_process_that_could_not_help_it(statuses: list[int], job: int) -> None:
    assert exit_codes.of_job(statuses) == job


def test_only_what_another_attempt_can_change_is_tried_again() -> None:
    assert {0, 2, 130} == exit_codes.FINAL
    assert not exit_codes.FREE & exit_codes.FINAL


def test_a_step_that_hangs_is_found_and_shown() -> None:
    code = (
        "import time; from flowjax.runtime.watchdog import Watchdog\n"
        "def hang(): time.sleep(60)\n"
        "with Watchdog(0.4) as guard:\n"
        "    for _ in range(8): guard.beat(); time.sleep(0.1)\n"
        "    print('alive', flush=True); hang()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == Exit.FAILED
    assert ended.stdout == "alive\n"
    assert "in hang" in ended.stderr


def test_a_watchdog_that_is_left_lets_go() -> None:
    with Watchdog(0.2) as guard:
        guard.beat()
    with pytest.raises(ValueError, match="step_timeout_seconds = -1"):
        Watchdog(-1)
