"""A step that hangs is found and shown."""

import subprocess
import sys

import pytest

from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.watchdog import Watchdog


def test_a_step_that_hangs_is_found_and_shown() -> None:
    code = (
        "import time; from flowjax.runtime.watchdog import Watchdog\n"
        "def hang(): time.sleep(60)\n"
        "with Watchdog(1.5) as guard:\n"  # on a busy machine a process may stand still for a second
        "    for _ in range(8): guard.beat(); time.sleep(0.2)\n"
        "    print('alive', flush=True); hang()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == Exit.FAILED
    assert ended.stdout == "alive\n"
    assert "in hang" in ended.stderr


def test_a_watchdog_that_is_left_lets_go() -> None:
    with Watchdog(0.2) as guard:
        guard.beat()
    with pytest.raises(ValueError, match="step_timeout_seconds = -1"):
        Watchdog(-1)
