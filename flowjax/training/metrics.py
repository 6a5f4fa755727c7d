"""Writers of a training run's metrics: JSON lines, TensorBoard, and the line on the terminal."""

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from flowjax.runtime import storage


class MetricWriter:
    """Writes each step's numbers to `metrics.jsonl`, a line each, and to TensorBoard.

    Args:
      jsonl: the file; a resumed run goes on at its end, lines of steps at or after `first_step` being those of a run that was cut off.
      tensorboard: folder of event files. Both may lie in a bucket: `keep`.
      first_step: the first step that will be written.
    """

    def __init__(self, jsonl: storage.Folder, tensorboard: storage.Folder, first_step: int = 0):
        from tensorboardX import SummaryWriter  # which imports PyTorch where it is installed

        kept = "".join(json.dumps(line) + "\n" for line in _lines(jsonl) if line["step"] < first_step)
        self._grows = [storage.Mirror(jsonl), storage.Mirror(tensorboard)]
        here, folder = (each.path for each in self._grows)
        storage.write_whole(here, lambda file: file.write_text(kept, encoding="utf-8"))
        self._file = open(here, "a", encoding="utf-8")  # noqa: SIM115 it is open as long as the run
        self._board = SummaryWriter(str(folder), purge_step=first_step or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step, by name; NaN and infinities are null in JSON."""
        plain = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **plain}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def keep(self) -> None:
        """Keep the written metrics for a run that resumes. On a disk they are kept already; in a bucket the files are written again."""
        self._board.flush()
        for each in self._grows:
            each.keep()

    def close(self) -> None:
        """Close the files, and upload them where the folder is a bucket."""
        self._file.close()
        self._board.close()
        for each in self._grows:
            each.close()


class NoMetricWriter(MetricWriter):
    """Writes nothing."""

    def __init__(self) -> None:
        pass

    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def keep(self) -> None:
        pass

    def close(self) -> None:
        pass


def read_metrics(jsonl: storage.Folder) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in order; a last line that was cut short is left out."""
    return _lines(jsonl)


def _lines(jsonl: storage.Folder) -> list[dict[str, Any]]:
    found = []
    for line in jsonl.read_text(encoding="utf-8").splitlines() if jsonl.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # cut short by a killed run
    return found


class ProgressLine:
    """`step 400/2000  loss 0.4132  12.1 steps/s  2 min 12 s left`: rewritten on a terminal, a new line every 30 s elsewhere."""

    def __init__(self, steps: int, stream: Any = None):
        self._steps, self._stream = steps, sys.stderr if stream is None else stream
        self._since: tuple[int, float] | None = None
        """Of the first line: the steps before it compiled programs, and tell nothing of those to come."""
        self._shown = 0.0
        self._terminal = self._stream.isatty()

    def show(self, step: int, loss: float) -> None:
        """Show where the run is, if it is time to."""
        now = time.perf_counter()
        last = step >= self._steps
        if now - self._shown < (0.5 if self._terminal else 30) and not last:
            return
        self._shown = now
        line = f"step {step:,}/{self._steps:,}  loss {loss:.4g}"
        if self._since is None:
            self._since = step, now
        elif step > self._since[0]:
            rate = (step - self._since[0]) / max(now - self._since[1], 1e-9)
            line += f"  {rate:.3g} steps/s" + ("" if last else f"  {_duration((self._steps - step) / rate)} left")
        self._stream.write(f"\r\x1b[K{line}{chr(10) * last}" if self._terminal else f"{line}\n")
        self._stream.flush()

    def say(self, what: str) -> None:
        """A line of its own."""
        self._stream.write(f"{what}\n")
        self._stream.flush()


class NoProgressLine(ProgressLine):
    """Shows nothing."""

    def __init__(self) -> None:
        pass

    def say(self, what: str) -> None:
        pass

    def show(self, step: int, loss: float) -> None:
        pass


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
