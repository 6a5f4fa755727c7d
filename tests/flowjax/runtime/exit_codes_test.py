"""Statuses by which a supervisor decides."""

import signal

import pytest

from flowjax.runtime import exit_codes
from flowjax.runtime.exit_codes import Exit


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
