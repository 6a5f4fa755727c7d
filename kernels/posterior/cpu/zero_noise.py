"""The posterior in the limit σ → 0 on the host: all weight on the nearest sample, equal ones sharing it. As `xla/zero_noise`."""

import numpy as np
from jaxtyping import Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.host_samples import UNCOUNTED, HostSamples
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.cpu.threads import on_every_core, share
from kernels.posterior.types import Queries
from kernels.posterior.xla.zero_noise import TIE


def nearest_posterior(samples: HostSamples, queries: Queries, rows: Int[np.ndarray, " m"], into: HostMoments) -> None:
    """Moments of the queries `rows`, all with σ = 0, put into `into`: one by one, from float64 differences. Their velocity stays NaN:
    it is a limit along the path, which the caller knows."""
    distances = np.empty(samples.n)
    for q in rows:
        part = samples.part(int(queries.label[q]))
        alpha = float(queries.alpha[q])
        center = queries.x[q].astype(np.float64) / (alpha or 1.0)
        if alpha:
            _square_distances(samples, center, part, distances)
        else:
            distances[part] = np.sum(center**2)
        counts = samples.log_prior[part] > UNCOUNTED
        shortest = distances[part][counts].min()
        tied = part.start + np.flatnonzero(counts & (distances[part] <= shortest * (1 + TIE)))
        prior = np.exp(samples.log_prior[tied])
        weights, base = prior / prior.sum(), samples.rows[tied[0]].astype(np.float64)
        mean = base + weights @ (samples.rows[tied] - base)
        into.denoised[q] = mean
        into.log_density[q] = -np.inf if shortest > 0 else np.inf
        into.top1_weight[q] = weights.max()
        into.top1_index[q] = samples.original[tied[weights == weights.max()]].min()
        into.entropy[q] = -np.sum(weights * np.log(weights))
        into.effective_samples[q] = 1 / np.sum(weights**2)
        into.variance[q] = np.sum(weights * np.sum((samples.rows[tied] - mean) ** 2, axis=1))
        into.error_bound[q], into.survivors[q], into.answered[q] = 0, len(tied), True


def _square_distances(samples: HostSamples, center: np.ndarray, part: slice, into: np.ndarray) -> None:
    def work(core: int) -> None:
        a, b = share(part.stop - part.start, core)
        numba_kernels.square_distances(samples.rows, center, part.start + a, part.start + b, into)

    on_every_core(work)
