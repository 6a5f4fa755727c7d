"""Queries as a dense pass reads them, and the size and the error of the scores to expect of it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import Task
from kernels.posterior.cpu.tuning import TUNING, UNIT


class ExpectedScores(NamedTuple):
    """Queries as a dense pass reads them, and the expected size and error of their scores."""

    directions: Float[np.ndarray, "B D"]
    """(α/σ²)(x - α c), float32."""
    length: Float[np.ndarray, " B"]
    """‖directions‖."""
    curvature: Float[np.ndarray, " B"]
    """α²/2σ²."""
    offset: Float[np.ndarray, " B"]
    """directions · (c - shift), to be subtracted from products with the samples as they are read."""
    error: Float[np.ndarray, " B"]
    """Standard deviation of a score's rounding error, nats: `error_of_scores`."""
    equal: Bool[np.ndarray, " B"]
    """Whether all scores are the same, but for the prior."""
    share: Float[np.ndarray, " B"]
    """Share of a query's weight from which on a sample is a candidate."""
    cut: Float[np.ndarray, " B"]
    """Nats below log Σ w at which all samples together weigh less than float32 shows."""

    @classmethod
    def of(cls, task: Task, *, all_candidates: bool) -> "ExpectedScores":
        """For the queries of a task, on the path. Scores of queries off it are larger, which `dense_tile` detects after the pass.

        Args:
          all_candidates: every sample whose error could show is a candidate; else only samples whose errors would not average out: the
            errors of the others add up to `TUNING.score_error`.
        """
        samples, (x, alpha, sigma) = task.samples, task.queries[:3]
        g, (squares, offset), away = np.empty(x.shape, np.float32), np.empty((2, len(x))), samples.center - samples.shift

        def some(a: int, b: int) -> None:
            numba_kernels.directions(x[a:b], alpha[a:b], sigma[a:b], samples.center, away, g[a:b], squares[a:b], offset[a:b])

        task.on_cores(len(x), some, least=TUNING.queries_of_a_core)
        variance = sigma**2
        rate, curvature = alpha / variance, alpha**2 / (2 * variance)
        size = np.abs(offset) + curvature * samples.mean_square + np.maximum(0, squares / (2 * variance) - samples.d / 2)
        size += 2 * rate * np.sqrt(squares * samples.mean_square / samples.d)  # intermediate sums
        size = np.where(alpha > 0, size, 0)  # at α = 0 all scores are 0
        equal = rate * np.sqrt(squares) * samples.radius + curvature * samples.radius**2 < TUNING.equal_scores
        width = np.maximum(1, 4 * samples.radius**2 / np.maximum(variance * samples.d / 2, 1e-60))  # squared, over the noise's
        error = error_of_scores(samples.d, size)
        share = 0 * error if all_candidates else np.minimum(1, (TUNING.score_error / np.maximum(error, TUNING.score_error)) ** 2)
        return cls(g, rate * np.sqrt(squares), curvature, offset, error, equal, share, np.log(samples.n * width / TUNING.dense_hidden))

    @property
    def margin(self) -> Float[np.ndarray, " B"]:
        """Upper bound of the rounding error of a difference of two scores, nats."""
        return 2 * TUNING.sure_deviations * self.error


def error_of_scores(d: int, size: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
    """Standard deviation of the float32 rounding error of a score of this size, nats: D sums, each rounded at about that size."""
    return UNIT / 3 * d**0.5 * size
