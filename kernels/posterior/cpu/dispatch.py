"""The CPU engine chooses for each query between a dense pass and a pruned search, whichever costs less on these data."""

import dataclasses
import functools
import logging
import math
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels.posterior.cpu.cost_model import RATIOS, Choice, Costs, SurvivorFractions, choose, count_survivors, measure_costs
from kernels.posterior.cpu.full_pass import dense_posterior
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.index import Index, Progress, build_index
from kernels.posterior.cpu.path_pass import path_posterior
from kernels.posterior.cpu.path_tile import Paths, PathSums
from kernels.posterior.cpu.pruned_search import pruned_posterior
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.cpu.small_pass import is_small, small_posterior
from kernels.posterior.cpu.threads import one_thread_each
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.cpu.zero_noise import nearest_posterior
from kernels.posterior.settings import PosteriorSettings
from kernels.posterior.types import LARGEST_SCORE, Queries, Samples

Output = TypeVar("Output")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Measurements made with the index, by which each query's way is chosen. With the same calibration, index and number of cores, results
    are the same to the bit."""

    costs: Costs
    survivors: SurvivorFractions

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain numbers and lists, for JSON."""
        return {"costs": dataclasses.asdict(self.costs), "survivors": {k: v.tolist() for k, v in self.survivors._asdict().items()}}

    @classmethod
    def from_dict(cls, saved: dict[str, dict[str, Any]]) -> "Calibration":
        """The calibration that `as_dict` saved.

        Raises:
          ValueError: `saved` is something else.
        """
        try:
            survivors = SurvivorFractions(**{k: np.asarray(v, np.float64) for k, v in saved["survivors"].items()})
            calibration = cls(Costs(**{k: float(v) for k, v in saved["costs"].items()}), survivors)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a calibration is what Calibration.as_dict gave, with costs and survivors; got {saved!r}") from error
        if any(v.shape != RATIOS.shape for v in survivors):
            raise ValueError(f"a calibration has {len(RATIOS)} shares of survivors, got {[v.shape for v in survivors]}")
        return calibration


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """An index and its calibration."""

    index: Index
    calibration: Calibration


class CpuEngine:
    """Computes posteriors on the host. It keeps the samples' norms from the first call on, and an index once that has paid for itself.

    Args:
      always: prune wherever that is possible at all (α > 0 and σ > 0), whatever it costs.
    """

    def __init__(self, *, always: bool):
        self.always = always
        self._host: HostSamples | None = None
        self._prepared: Prepared | None = None
        self._prunable = 0.0
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuEngine) and self.always == other.always

    def __hash__(self) -> int:
        return hash((CpuEngine, self.always))

    def __reduce__(self) -> tuple[Callable[[bool], "CpuEngine"], tuple[bool]]:
        """Copies and pickles are `fresh`: a lock cannot be copied, and the index is made again once it pays for itself."""
        return _fresh_engine, (self.always,)

    def fresh(self) -> "CpuEngine":
        """An engine with the same setting, for other samples."""
        return CpuEngine(always=self.always)

    @property
    def ready(self) -> bool:
        """Whether there is an index."""
        return self._prepared is not None

    def possible(self, how: PosteriorSettings) -> bool:
        """Whether posteriors with these settings are computed on the host."""
        if self.always:
            return True
        return how.implementation == "streaming" and how.precision == "highest" and jax.default_backend() == "cpu"

    def prepare(
        self, samples: Samples, *, calibration: Calibration | None = None, index: Index | None = None, progress: Progress = iter
    ) -> Prepared:
        """The index of the samples and its calibration, made at the first call.

        Args:
          calibration: of an earlier run; None: it is measured.
          index: of these samples, from a file; None: it is made.
          progress: as in `build_index`.
        """
        with self._lock:
            if self._prepared is None:
                host = self.host_samples(samples)
                if index is None:
                    logging.getLogger(__name__).info("making the index of %d samples of %d numbers", host.n, host.d)
                    index = build_index(host, progress)
                self._host, self._prepared = index, Prepared(index, calibration or self._measured(index))
            elif calibration is not None:
                self._prepared = Prepared(self._prepared.index, calibration)
            return self._prepared

    def _measured(self, index: Index) -> Calibration:
        with one_thread_each():
            survivors = count_survivors(index)
            return Calibration(Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0) if self.always else measure_costs(index, survivors), survivors)

    def choice(self, samples: Samples, alpha: float, sigma: float) -> Choice | str:
        """How queries with these coefficients are computed."""
        if not TUNING.worth_an_index(*samples.values.shape) and not self.always:
            return f"dense: a pass over all {samples.n:,} samples by matrix products on the host takes milliseconds; no index is made"
        prepared = self.prepare(samples)
        index, calibration = prepared.index, prepared.calibration
        sigma = sigma if samples.unit is None else sigma / float(samples.unit)
        return choose(index.n, calibration.costs, calibration.survivors, sigma / alpha if alpha > 0 else math.inf)

    def __call__(self, samples: Samples, queries: Queries, *, tolerance: float) -> HostMoments | None:
        """Moments of the queries, in the caller's unit; some may not be `answered`. None if none is."""
        unit = 1.0 if samples.unit is None else float(samples.unit)
        if unit != 1:
            queries = queries._replace(x=queries.x.astype(np.float64) / unit, sigma=queries.sigma / unit)
        host = self.host_samples(samples)
        indexed = TUNING.worth_an_index(host.n, host.d)
        with one_thread_each():
            small = not self.always and not indexed and is_small(host, queries)
            out = small_posterior(host, queries) if small else HostMoments.none(*queries.x.shape)
            if out.answered.all():
                return out if unit == 1 else out.times(unit)
            squares = np.vecdot(queries.x, queries.x)  # finite only where x is
            sound = np.isfinite(squares) if np.isfinite(squares).all() else np.isfinite(queries.x).all(axis=1)
            sound &= host.has_class(queries.label) & ~out.answered
            inside = sound & (queries.sigma > 0) & fit_float32(host, queries, squares)
            nearest_posterior(host, queries, np.flatnonzero(sound & (queries.sigma == 0)), out)
            due = indexed and self._prunable >= TUNING.index_cost
            if not inside.any():
                pass
            elif self.always or self._prepared is not None or due:
                self._by_cost(self.prepare(samples), queries, inside, tolerance, out)
            else:
                dense_posterior(host, queries, np.flatnonzero(inside), out)
                if indexed:
                    self._prunable += _passes_lost(host, queries.label[out.answered & (out.top1_weight >= TUNING.refined)])
        if not out.answered.any():
            return None
        return out.without_others() if unit == 1 else out.without_others().times(unit)

    def along_paths(self, samples: Samples, paths: Paths, *, means: bool) -> PathSums:
        """The posterior of whole paths, in the samples' unit, as far as it is answered.

        Args:
          paths: x_1 and the ratios in the caller's unit.
          means: as in `path_posterior`.
        """
        unit = 1.0 if samples.unit is None else float(samples.unit)
        if unit != 1:
            paths = paths._replace(x_1=paths.x_1.astype(np.float64) / unit, ratio=paths.ratio * unit)
        host = self.host_samples(samples)
        with one_thread_each():
            sound = np.isfinite(paths.x_0).all(axis=1) & np.isfinite(paths.x_1).all(axis=1) & host.has_class(paths.label)
            return path_posterior(host, paths, np.flatnonzero(sound), means=means)

    def host_samples(self, samples: Samples) -> HostSamples:
        """The samples as this engine reads them."""
        if self._host is None:
            self._host = HostSamples.of(samples)
        return self._host

    def _by_cost(self, prepared: Prepared, queries: Queries, inside: Bool[np.ndarray, " B"], tolerance: float, out: HostMoments) -> None:
        """Compute each query in the way that is cheapest for it."""
        index, costs, survivors = prepared.index, prepared.calibration.costs, prepared.calibration.survivors
        able = inside & (queries.alpha > 0)
        ratio = np.where(able, queries.sigma / np.where(able, queries.alpha, 1), np.inf)
        sizes = {int(label): index.size(int(label)) for label in np.unique(queries.label[inside])}
        ratio_and_size = np.stack([ratio, [sizes.get(int(label), 1) for label in queries.label]])
        distinct, own = np.unique(ratio_and_size, axis=1, return_inverse=True)
        cheapest = [costs.cheapest(survivors, float(one), int(n)) for one, n in distinct.T]
        by_products = np.array([way == "products" for way, _ in cheapest])[own]
        cost = np.array([cost for _, cost in cheapest])[own]
        share = costs.dense / costs.score if costs.score else math.inf

        def prune(rows: Bool[np.ndarray, " B"], most: float) -> None:
            """Prune for these queries, and give up those that cost more than `most` dense passes."""
            if rows.any():
                budget = math.inf if self.always else most * share
                pruned_posterior(index, queries, np.flatnonzero(rows), out, tolerance=tolerance, by_products=by_products, most=budget)

        prune(able & (self.always | (cost < 1)), 1.0)
        if not self.always:
            dense_posterior(index, queries, np.flatnonzero(inside & ~out.answered), out)
            prune(able & ~out.answered & (cost >= 1), TUNING.compiled_cost)  # queries of a cluster, or off the path


def by_host(
    engine: CpuEngine | None,
    samples: Samples,
    queries: Queries,
    how: PosteriorSettings,
    finish: Callable[[HostMoments], Output],
    compiled: Callable[[np.ndarray], Output],
) -> Output | None:
    """Results of the CPU engine, with the queries that it leaves unanswered computed by a compiled program.

    None where there is no engine for these settings, or it answers no query.

    Args:
      finish: from the engine's moments to the result, in NumPy arrays.
      compiled: from rows of queries to their result.
    """
    if engine is None or not engine.possible(how):
        return None
    moments = engine(samples, queries, tolerance=how.tolerance)
    if moments is None:
        return None
    result = finish(moments)
    left = np.flatnonzero(~moments.answered)
    if left.size:
        rest = compiled(np.resize(left, 1 << (len(left) - 1).bit_length()))  # few sizes, and so few programs
        for whole, more in zip(jax.tree.leaves(result), jax.tree.leaves(rest), strict=True):
            whole[left] = np.asarray(more)[: len(left)].reshape(-1, *whole.shape[1:])
    return on_device(result)


def on_device(result: Output) -> Output:
    """A tree of NumPy arrays, int32 or of floats, as JAX arrays, int32 or float32: infinite beyond it.

    JAX may keep the memory of the arrays, which must not change.

    Small ones travel together: to place one takes as long as to compute a moment of a small data set.
    """
    leaves, structure = jax.tree.flatten(result)
    with np.errstate(over="ignore"):
        arrays = [leaf if leaf.dtype == np.int32 else leaf.astype(np.float32, copy=False) for leaf in leaves]
    small = [one for one in arrays if one.size <= SMALL_ARRAY]
    forms = tuple((one.shape, one.dtype == np.int32) for one in small)
    large = iter(jax.device_put([one for one in arrays if one.size > SMALL_ARRAY]))
    apart = iter(_apart(forms, np.concatenate([one.ravel().view(np.float32) for one in small])) if small else [])
    return jax.tree.unflatten(structure, [next(apart if one.size <= SMALL_ARRAY else large) for one in arrays])


SMALL_ARRAY = 2**14
"""Numbers in an array up to which it is copied to travel with others."""


@functools.partial(jax.jit, static_argnums=0)
def _apart(forms: tuple[tuple[tuple[int, ...], bool], ...], numbers: Float[Array, " n"]) -> list[Array]:
    """The arrays that follow each other in `numbers`, from the shape of each and whether it is int32."""
    start, arrays = 0, []
    for shape, whole in forms:
        array = numbers[start : start + math.prod(shape)].reshape(shape)
        start += array.size
        arrays.append(jax.lax.bitcast_convert_type(array, np.int32) if whole else array)
    return arrays


def fit_float32(samples: HostSamples, queries: Queries, squares: Float[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
    """Whether float32 holds the scores, and the products on the way to them; not for data that are 10¹² times larger than the noise.

    Args:
      squares: ‖x‖² of each query, infinite where its dtype does not hold it.
    """
    rate = queries.alpha / np.where(queries.sigma > 0, queries.sigma, 1) ** 2
    reach = max(samples.radius, 1)
    away = np.sqrt(squares.astype(np.float64)) + queries.alpha * float(np.linalg.norm(samples.center))
    return rate * (away * reach + queries.alpha * reach**2) < LARGEST_SCORE


def _passes_lost(samples: HostSamples, label: Int[np.ndarray, " m"]) -> float:
    """How many queries' dense passes over all samples an index would have saved, for queries of these labels that pruning would serve."""
    classes, counts = np.unique(label, return_counts=True)
    sizes = np.array([samples.size(int(one)) for one in classes], int)
    served = np.array([TUNING.worth_an_index(int(size), samples.d) for size in sizes], bool)
    return float(np.sum((np.maximum(counts, TUNING.least_counted) * sizes / samples.n)[served]))


def _fresh_engine(always: bool) -> CpuEngine:
    return CpuEngine(always=always)
