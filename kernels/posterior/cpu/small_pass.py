"""The posterior over a small data set, by products of so much precision that no score needs to be computed again.

A pass over large data finds the samples whose float32 rounding could show and weighs them anew. For a few thousand samples that takes
longer than all else. Here scores are float64 products where float32 would not do. float64 rounds a score by less than
`TUNING.small_error`, unless the data are some 10⁴ times as large as the noise; such queries are left unanswered.
"""

import numpy as np

from kernels.posterior.cpu import numba_kernels, small_kernels
from kernels.posterior.cpu.expected_scores import error_of_scores
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments, tiles_of
from kernels.posterior.cpu.threads import on_every_core, share
from kernels.posterior.cpu.tuning import TUNING, UNIT, UNIT64
from kernels.posterior.types import LARGEST_SCORE, Queries


def is_small(samples: HostSamples, queries: Queries) -> bool:
    """Whether `small_posterior` serves these queries best: few samples, few queries, and no σ = 0."""
    numbers = samples.n * samples.d
    return numbers <= TUNING.small_numbers and numbers * len(queries.x) <= TUNING.small_products and bool(queries.sigma.min() > 0)


def small_posterior(samples: HostSamples, queries: Queries) -> HostMoments:
    """Moments of queries with σ > 0. Those whose exactness is not certain, and those without samples, are not `answered`."""
    label, into = queries.label, HostMoments.none(*queries.x.shape)
    if (label == label[0]).all():
        if samples.has_class(label[:1])[0]:
            _one_class(samples, Queries(*(np.require(v, requirements=["C", "W"]) for v in queries)), into)
        return into
    for _, rows in tiles_of(samples, queries, np.flatnonzero(samples.has_class(label)), len(label)):
        with into.at(rows) as own:
            _one_class(samples, queries.at(rows), own)
    return into


def _one_class(samples: HostSamples, queries: Queries, into: HostMoments, *, exactly: bool = False) -> None:
    """Queries that see the same samples: by float32 products where their errors are small, else, and where they show, by float64 ones.

    Scores are large, and their errors too; weights are not, so that means are float32 products first of all. Each core takes queries of
    its own where there are enough of them to be worth waking it.
    """
    x, alpha, sigma, label, kappa, rate = queries
    (b, d), center, part = x.shape, samples.center, samples.part(int(label[0]))
    direction, squares, offset, sums = np.empty((b, d)), np.empty(b), np.empty(b), np.empty((5, b))
    numba_kernels.directions(x, alpha, sigma, center, center, direction, squares, offset)
    length = alpha / sigma**2 * np.sqrt(squares)
    rounding = error_of_scores(d, samples.radius * (length + (alpha / sigma) ** 2 * samples.radius))
    short = not exactly and rounding.max() <= TUNING.score_error and length.max() < LARGEST_SCORE
    if not short:
        rounding *= UNIT64 / UNIT
    rows, norms, rows32 = samples.centred[part], samples.square_norms[part], samples.centred32[part]
    of_samples = rows, norms, samples.log_prior[part], samples.original[part]
    factors = direction.astype(np.float32 if short else np.float64, copy=False)
    error, constant = TUNING.score_error if short else TUNING.small_error, -float(samples.log_masses(label[:1])[0])
    result = into.denoised, into.velocity, into.log_density, into.top1_weight, into.entropy, into.effective_samples, into.variance
    several = rows.size * b > TUNING.one_core

    def some(core: int) -> None:
        """The queries of one core, or all of them."""
        mine = slice(*share(b, core)) if several else slice(None)
        weights = np.empty((len(factors[mine]), len(rows)), np.float32)
        found = small_kernels.SmallSums(*(v[mine] for v in (*sums, into.top1_index)))
        of_scores = direction[mine], alpha[mine], sigma[mine], rounding[mine]
        count = small_kernels.small_weigh(factors[mine] @ (rows32 if short else rows).T, of_scores, of_samples, weights, found)
        sparse = count <= TUNING.sparse_weights * weights.size
        # Copies round alike, so that their errors add up; so do those of many numbers that a library adds up one by one.
        rounded = not (exactly or sparse or samples.has_near_copies or weights.size * d <= TUNING.one_by_one)
        if sparse:
            mean = np.empty((len(weights), d))
            small_kernels.small_means(weights, rows, mean)
        else:
            mean = weights @ (rows32 if rounded else rows)
        limits = constant, error, TUNING.velocity_error, 4 * UNIT * samples.radius * rounded, TUNING.least_spread * rounded, 16 * UNIT64
        of_queries = tuple(np.asarray(v)[mine] for v in (x, sigma, kappa, rate, squares, rounding))
        small_kernels.small_finish(of_queries, center, mean, found, limits, tuple(v[mine] for v in (*result, into.answered)))

    if several:
        on_every_core(some)
    else:
        some(0)
    into.error_bound[:] = 0
    into.survivors[:] = len(rows)
    left = np.flatnonzero(~into.answered)
    if left.size and not exactly:
        with into.at(left) as own:
            _one_class(samples, queries.at(left), own, exactly=True)
