"""What the supervisor does with each status, and CI's form of the drill (tests/drill.py): two of its faults."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest

from flowjax.runtime.exit_codes import Exit
from tests.drill import Drill, Kind, Sweeping, Training


def supervised(tmp_path: pathlib.Path, script: str, *flags: str) -> subprocess.Popen[str]:
    """A shell script under the supervisor; `$n` is the attempt, 1, 2, ..., and `$*` what the process was told."""
    file = tmp_path / "job.sh"
    counted = f"d={tmp_path}/tries; echo x >> $d.$$; n=$(ls $d.* | wc -l)\n{script}\n"
    file.write_text(counted)
    command = [sys.executable, "-m", "experiments.supervise", *flags, "--", "sh", str(file), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(job: subprocess.Popen[str]) -> tuple[int, int, str]:
    """Its status, how often it was started again, and what it said."""
    output, said = job.communicate(timeout=300)
    return job.returncode, said.count("starting again"), output + said


@pytest.mark.parametrize(
    ("script", "flags", "status", "restarts"),
    [
        ("exit 0", (), Exit.FINISHED, 0),
        ("exit 2", (), Exit.USER_ERROR, 0),
        ("[ $n -lt 4 ] && exit 75; exit 0", ("--max_restarts=0",), Exit.FINISHED, 3),
        ("[ $n -lt 2 ] && kill -9 $$; exit 0", (), Exit.FINISHED, 1),
        ("exit 76", ("--max_restarts=1",), Exit.LOST_PEER, 1),
    ],
)
def test_only_what_another_attempt_can_change_is_started_again(
    tmp_path: pathlib.Path, script: str, flags: tuple[str, ...], status: int, restarts: int
) -> None:
    found, again, said = ended(supervised(tmp_path, script, *flags))
    assert (found, again) == (status, restarts), said


def test_processes_are_told_of_each_other_and_one_that_stays_behind_is_killed(tmp_path: pathlib.Path) -> None:
    script = 'case "$*" in *--num_processes=2*--process_id=1*) exit 2;; *) sleep 600;; esac'
    began = time.monotonic()
    status, again, said = ended(supervised(tmp_path, script, "--processes=2", "--grace_seconds=0.2"))
    assert (status, again) == (Exit.USER_ERROR, 0), said
    assert time.monotonic() - began < 300


def test_sigterm_is_passed_on_and_ends_the_job(tmp_path: pathlib.Path) -> None:
    job = supervised(tmp_path, f"trap 'exit 75' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done")
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert ended(job)[:2] == (Exit.STOPPED, 0)


def test_a_command_that_would_begin_anew_is_refused() -> None:
    for command in ([], ["--", "true"], ["--", "nowhere", "--resume"]):
        done = subprocess.run([sys.executable, "-m", "experiments.supervise", *command], capture_output=True, text=True, check=False)
        assert done.returncode == Exit.USER_ERROR
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        pytest.param(Training(), ("sigterm", "corrupt_the_newest"), marks=pytest.mark.slow, id="train"),
        pytest.param(Training(), ("fill_the_disk",), marks=pytest.mark.long, id="train on a full disk"),
        pytest.param(Sweeping(), ("corrupt_the_newest", "fill_the_disk"), marks=pytest.mark.long, id="oracle_sweep"),
    ],
)
def test_each_fault_once_and_the_end_is_that_of_an_undisturbed_run(tmp_path: pathlib.Path, kind: Kind, faults: tuple[str, ...]) -> None:
    """Two processes of two devices each. With a corrupt newest checkpoint, or time, the coordinator is killed: one restart for both."""
    said: list[str] = []
    drill = Drill(tmp_path, kind, faults, processes=2, say=said.append)
    assert drill.disturbed() == drill.undisturbed()
    assert drill.lost == 0, said
    assert len(drill.waited) == len(faults)
