"""The training loop: steps, checkpoints, metrics and evaluations, in order."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from flowjax.data.pipeline import Batches
from flowjax.runtime import processes
from flowjax.runtime.preemption import Preemption, Stopped
from flowjax.runtime.watchdog import Watchdog
from flowjax.training.checkpoint import Checkpointer, NoCheckpointer, SaveFailed
from flowjax.training.metrics import MetricWriter, NoMetricWriter, NoProgressLine, ProgressLine
from flowjax.training.sharding import place_batch
from flowjax.training.step import State, Trainer

Evaluate = Callable[[int, State], dict[str, float]]
"""An evaluation at times of the schedule: from the step and the state (see `Trained.state`) to numbers for the metrics."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Number of steps, and the intervals of logging and evaluation."""

    steps: int
    log_every: int = 20
    evaluate_every: int = 0
    """0: at the end only."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.log_every < 1 or self.evaluate_every < 0:
            raise ValueError(
                f"steps = {self.steps}, log_every = {self.log_every}, evaluate_every = {self.evaluate_every}: expected at least 1, 1 and 0"
            )


@dataclasses.dataclass(frozen=True)
class Trained:
    """Result of a training run."""

    state: State
    """On the devices; where several processes share them, parameters and their average whole on every host, as NumPy arrays."""
    final_loss: float
    """Mean over the last logged steps."""
    steps_per_second: float
    """From the second step of this process on, evaluations and saving left out."""
    compile_seconds: float
    """Tracing and compiling the step."""


@dataclasses.dataclass(frozen=True)
class Observers:
    """Observers of a training run: metrics, progress, evaluations and the watchdog. They do not change its result.

    Attributes:
      writer: made when the first step is known.
      progress: made when the first step begins.
      evaluate: called with the state at times of the `Schedule`, and at the end.
      watchdog: notified of every step; an evaluation counts with the step that follows, and so does what comes before the first one.
    """

    writer: Callable[[int], MetricWriter] = lambda first_step: NoMetricWriter()
    progress: Callable[[], ProgressLine] = NoProgressLine
    evaluate: Evaluate = lambda step, state: {}
    watchdog: Watchdog | None = None


class Diverged(ValueError):
    """A loss or a gradient that is NaN or infinite."""


# It is a little over sixty lines, so that the order of a step, a checkpoint and an evaluation is seen in one place.
def train(
    trainer: Trainer,
    batches: Batches,
    schedule: Schedule,
    *,
    seed: int,
    constants: Any = None,
    checkpointer: Checkpointer | None = None,
    observers: Observers = Observers(),
) -> Trained:
    """Train from the newest checkpoint, or from the beginning, to the last step of the schedule.

    A step is a function of the seed, the step and the configuration: a run that was stopped and goes on ends with the same parameters, on
    any number of devices and processes but for rounding. Each process reads its own share of the batches, and all save; the observers are
    the first one's, but for the watchdog. With a checkpointer, SIGTERM saves, and raises.

    Args:
      seed: of the initial parameters and of all draws.
      constants: arrays that the task's loss needs besides parameters.

    Raises:
      Diverged: with the step, the seed of its batch and the last good checkpoint.
      Stopped: SIGTERM came, and the last step done is saved. It ends the process with the status `Exit.STOPPED`.
      ValueError: a batch that cannot be divided among the devices, a checkpoint of another configuration.
      SaveFailed: the last checkpoint could not be saved.
    """
    trainer.check_batch(batches.batch_size)
    saver = NoCheckpointer() if checkpointer is None else checkpointer
    with contextlib.ExitStack() as stack:
        stack.push(saver)
        guard = stack.enter_context(observers.watchdog or Watchdog())
        guard.beat()  # reading a checkpoint and compiling count as a step
        preemption = stack.enter_context(Preemption(enabled=checkpointer is not None))
        state, last_loss = _begin(trainer, saver, schedule, seed)
        first = int(state.step)
        stream = stack.enter_context(contextlib.closing(batches.iterate(first)))
        metrics = stack.enter_context(contextlib.closing(observers.writer(first)))
        line = observers.progress()
        if last_loss is not None:
            line.say(f"goes on from the checkpoint at step {first}")

        program, compile_seconds = _compiled(trainer, state, batches, constants)
        clock, window = _Clock(), _Window(batches, saver, last_loss)
        for step in range(first + 1, schedule.steps + 1):
            state, values = program(state, place_batch(next(stream), trainer.mesh), constants)
            window.add(step, values)
            clock.tick(values)
            guard.beat()
            if step % schedule.log_every == 0 or step == schedule.steps:
                means = window.close()
                metrics.write(step, {**means, "steps_per_second": clock.rate})
                line.show(step, means["loss"])
            with clock.paused():
                stop = preemption.asked(step)
                if stop or saver.due(step) or step == schedule.steps:
                    window.check()
                    metrics.keep()
                    saver.save(state, {"loss": window.last_loss}, step)
                if stop:
                    saver.wait()
                    raise Stopped(f"step {step}")
                if schedule.evaluate_every and step % schedule.evaluate_every == 0 and step < schedule.steps:
                    window.check()
                    metrics.write(step, observers.evaluate(step, _whole(state)))
        state = _whole(state)
        metrics.write(schedule.steps, observers.evaluate(schedule.steps, state))
        return Trained(state, window.last_loss, clock.rate, compile_seconds)


def _begin(trainer: Trainer, saver: Checkpointer, schedule: Schedule, seed: int) -> tuple[State, float | None]:
    """The state to train from, and the loss that its checkpoint had; None: there is no checkpoint."""
    restored = saver.restore(trainer)
    if restored is None:
        return trainer.init(seed), None
    if int(restored.state.step) > schedule.steps:
        raise ValueError(
            f"steps = {schedule.steps}, but the newest checkpoint is at step {int(restored.state.step)}: ask for at least as many"
        )
    return restored.state, float(restored.data["loss"])


def _compiled(trainer: Trainer, state: State, batches: Batches, constants: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    program = trainer.step().lower(state, place_batch(batches[0], trainer.mesh), constants).compile()
    return program, time.perf_counter() - started


def _whole(state: State) -> State:
    """See `Trained.state`."""
    parameters, ema = processes.whole((state.parameters, state.ema))
    return dataclasses.replace(state, parameters=parameters, ema=ema)


class _Window:
    """The metrics of the steps since they were last logged. They are read one step late, so that the loop never waits for the device."""

    def __init__(self, batches: Batches, saver: Checkpointer, last_loss: float | None):
        self._seed, self._saver = batches.seed, saver
        self._unchecked: list[tuple[int, dict[str, jax.Array]]] = []
        self._checked: list[dict[str, float]] = []
        self.last_loss = math.nan if last_loss is None else last_loss

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        self._unchecked.append((step, values))
        self.check(leave=1)

    def check(self, leave: int = 0) -> None:
        while len(self._unchecked) > leave:
            step, values = self._unchecked.pop(0)
            numbers = {name: float(value) for name, value in jax.device_get(values).items()}
            if not all(map(math.isfinite, numbers.values())):
                raise Diverged(self._told(step, numbers))
            self._checked.append(numbers)

    def close(self) -> dict[str, float]:
        self.check()
        means = {name: sum(v[name] for v in self._checked) / len(self._checked) for name in self._checked[0]}
        self._checked, self.last_loss = [], means["loss"]
        return means

    def _told(self, step: int, numbers: dict[str, float]) -> str:
        bad = ", ".join(f"{name} = {value}" for name, value in numbers.items() if not math.isfinite(value))
        with contextlib.suppress(SaveFailed):
            self._saver.wait()
        last = "there is no checkpoint" if self._saver.latest is None else f"the last good checkpoint is at step {self._saver.latest}"
        return f"{bad} at step {step} (batch {step - 1} of seed {self._seed}); {last}: lower optimizer.learning_rate or optimizer.clip"


class _Clock:
    """Steps a second, from the end of the first step on, without what the loop does besides."""

    def __init__(self) -> None:
        self._steps, self._since = -1, 0.0

    def tick(self, values: Any) -> None:
        self._steps += 1
        if self._steps == 0:
            jax.block_until_ready(values)
            self._since = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._since += time.perf_counter() - before

    @property
    def rate(self) -> float:
        return self._steps / (time.perf_counter() - self._since) if self._steps > 0 else math.nan
