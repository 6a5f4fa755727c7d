"""The fused TPU kernel in interpret mode: its Partial against float64 NumPy, and its refined moments against the independent oracle."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from flowjax.oracle import Oracle
from kernels.float64 import float64_scope
from kernels.posterior import api
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.pallas.tpu import pallas_tpu
from kernels.posterior.pallas.tpu_blocks import GENERATIONS, TpuBlocks
from kernels.posterior.partial import Partial
from kernels.posterior.types import CentredQueries, Queries, Samples, by_class, prepare
from kernels.posterior.xla.refine import refine
from tests import float64_oracle

SMALL = TpuBlocks(32, 256, score_tile=(128, 128, 128), sum_tile=128)
WIDE = TpuBlocks(64, 256, score_tile=(128, 256, 256), sum_tile=256)
SPLIT = TpuBlocks(32, 128, 128, score_tile=(128, 128, 128), sum_tile=128)
EPS = 2.0**-24


@dataclasses.dataclass(frozen=True)
class Problem:
    queries: CentredQueries
    samples: Samples
    x: np.ndarray
    t: np.ndarray
    label: np.ndarray


@functools.cache
def problem(
    n: int = 700,
    d: int = 200,
    b: int = 40,
    dtype: str = "float32",
    t: float = 0.03,
    labels: bool = False,
    counts: bool = False,
    far: float = 0.0,
) -> Problem:
    """Normal data, or random bytes, and queries that lie on the path of some of them."""
    rng = np.random.default_rng(n + d + b)
    y = rng.integers(0, 3, (n, d)) if dtype == "uint8" else rng.standard_normal((n, d)).astype(np.float32) + np.float32(far)
    values = jnp.asarray(y).astype(dtype)
    classes = jnp.asarray(rng.integers(0, 4, n), jnp.int32) if labels else None
    prior = jnp.asarray(rng.integers(1, 4, n), jnp.float32) if counts else None
    samples = prepare(values, classes, prior)
    at = np.full(b, t, np.float32)
    x = at[:, None] * np.asarray(values, np.float32)[rng.integers(0, n, b)] + (1 - at)[:, None] * rng.standard_normal((b, d)).astype(
        np.float32
    )
    label = rng.integers(-1, 4, b).astype(np.int32) if labels else np.full(b, -1, np.int32)
    with float64_scope():
        queries = CentredQueries.of(Queries(jnp.asarray(x), jnp.asarray(at), jnp.asarray(1 - at), jnp.asarray(label)), samples)
    return Problem(queries, samples, x, at, label)


@functools.cache
def program(blocks: TpuBlocks, full: bool, precision: str, **options):
    """The jitted kernel: tests of one shape share it."""
    return jax.jit(lambda q, s: pallas_tpu(q, s, full=full, blocks=blocks, precision=precision, **options))


def kernel(p: Problem, blocks: TpuBlocks = SMALL, full: bool = True, precision: str = "highest", **options) -> Partial:
    with float64_scope():
        return program(blocks, full, precision, **{"interpret": True} | options)(p.queries, p.samples)


def definition(p: Problem) -> dict[str, np.ndarray]:
    """What a Partial must hold, float64, from the docstring of each field."""
    s = p.samples
    y = np.asarray(s.values, np.float64) - np.asarray(s.center, np.float64)
    norm = np.square(y).sum(1)
    score = np.asarray(p.queries.direction) @ y.T - np.asarray(p.queries.curvature)[:, None] * norm
    prior = np.ones(s.n) if s.log_prior is None else np.exp(np.asarray(s.log_prior, np.float64))
    counts = np.ones((len(p.x), s.n), bool) if s.labels is None else (p.label[:, None] == np.asarray(s.labels)) | (p.label[:, None] == -1)
    score = np.where(counts, score + np.log(prior), -np.inf)
    peak = score.max(1)
    w = np.exp(score - peak[:, None])
    mean = w @ y / w.sum(1)[:, None]
    return {
        "score": score,
        "peak": peak,
        "weight": w.sum(1),
        "mean": mean,
        "second": np.einsum("bn,bn->b", w, norm - 2 * mean @ y.T + np.square(mean).sum(1)[:, None]),
        "weight_square": np.square(w).sum(1),
        "weighted_score": np.einsum("bn,bn->b", w, np.where(w > 0, np.where(w > 0, score, 0) - peak[:, None], 0)),
        "mass": (counts * prior).sum(1),
    }


def score_error(p: Problem, unit: float) -> float:
    """Of a float32 score: its terms, at their largest, each off by √D roundings of their products."""
    y = np.asarray(p.samples.values, np.float64)
    direction = np.linalg.norm(np.asarray(p.queries.direction), axis=1).max()
    return float(unit * direction * np.linalg.norm(y, axis=1).max() * max(4, p.samples.d**0.5 / 4))


def check(found: Partial, p: Problem, unit: float = EPS) -> None:
    """Every moment to what errors of the scores and of summing N terms allow."""
    want = definition(p)
    # Sums of N rounded terms grow by a random walk; weights err by the error of their score, or of their bfloat16 part.
    relative = 4 * (score_error(p, unit) + unit * p.samples.n**0.5 + 2 * unit)
    reach = float(np.sqrt(np.asarray(p.samples.square_norms).max()) + np.linalg.norm(np.asarray(p.samples.center)))
    scale = {
        "peak": 1,
        "weight": want["weight"].max(),
        "mean": reach / p.samples.d**0.5 * 4,
        "second": want["weight"].max() * reach**2,
        "weight_square": want["weight_square"].max(),
        "weighted_score": max(1, np.abs(want["weighted_score"]).max()),
        "mass": want["mass"].max(),
    }
    for name, size in scale.items():
        value = getattr(found, name)
        if name in ("second", "weight_square", "weighted_score", "mass") and not found.full:
            assert value is None
            continue
        np.testing.assert_allclose(value, want[name], rtol=0, atol=relative * size, err_msg=name)
    # The candidates are samples with their scores, the best of all among them, and rest_peak bounds all others.
    error = score_error(p, unit) * 2 + 1e-6
    index, score = np.asarray(found.top_index), np.asarray(found.top_score)
    there = np.isfinite(score)
    np.testing.assert_allclose(
        score[there], np.take_along_axis(want["score"], np.minimum(index, p.samples.n - 1), 1)[there], rtol=1e-6, atol=error
    )
    np.testing.assert_allclose(score[:, 0], want["peak"], rtol=1e-6, atol=error)
    assert (np.diff(score[:, : there.all(0).sum()], axis=1) <= 0).all()
    rest = want["score"].copy()
    for row, chosen, real in zip(rest, index, there, strict=True):
        assert len(set(chosen[real])) == real.sum()
        row[chosen[real]] = -np.inf
    assert (rest.max(axis=1, initial=-np.inf) <= np.asarray(found.rest_peak) + error).all()


slow, long = pytest.mark.slow, pytest.mark.long


def cases(quick: list[dict], thorough: list[dict], rest: list[dict]) -> pytest.MarkDecorator:
    """Parameters, of which `make test` runs the first few, `make test-slow` some and `make test-long` the rest: each compiles a kernel."""
    marked = [(thorough, slow), (rest, long)]
    return pytest.mark.parametrize("options", [*quick, *(pytest.param(case, marks=m) for some, m in marked for case in some)], ids=str)


@cases(
    [{"dtype": "uint8", "labels": True, "counts": True}, {"n": 1, "b": 1, "d": 1}],
    [{"dtype": "bfloat16", "far": 30.0}],
    [{"n": 300, "d": 257, "b": 70, "t": 0.0}],
)
def test_every_moment_is_that_of_the_definition(options):
    """Any N, D and B, whatever their remainders; data of each dtype, far from the origin, with classes and counts; early and late."""
    p = problem(**options)
    check(kernel(p), p)


@cases([{"dtype": "bfloat16", "n": 200}], [], [{"dtype": "uint8", "labels": True, "d": 300}])
def test_dimensions_split_into_chunks(options):
    """D in chunks of 128 columns, the last of them short."""
    p = problem(**options)
    check(kernel(p, SPLIT), p)


@pytest.mark.parametrize(
    ("precision", "bits", "dtype"), [pytest.param("high", 16, "float32", marks=long), pytest.param("default", 8, "bfloat16", marks=slow)]
)
def test_lower_precisions_err_by_their_bits(precision, bits, dtype):
    """bfloat16 parts: 8 bits each."""
    p = problem(dtype=dtype)
    check(kernel(p, precision=precision), p, unit=2.0**-bits)


@pytest.mark.long
@slow
def test_velocity_only():
    """Without the other moments, the same mean and candidates; in a wider tile."""
    p = problem()
    check(kernel(p, WIDE, full=False), p)


@cases([], [], [{"dtype": "uint8"}])
def test_refined_moments_are_those_of_the_oracle(options):
    """With exact candidates, at a t between the stages: the independent float64 oracle."""
    p = problem(t=0.15, **options)
    partial = kernel(p)
    with float64_scope():
        found = jax.jit(lambda partial, queries, samples: refine(partial, queries, samples, Shards()))(partial, p.queries, p.samples)
    labels = None if p.samples.labels is None else np.asarray(p.samples.labels)
    want = float64_oracle.oracle(np.asarray(p.samples.values, np.float32), p.x, p.t, labels=labels, label=p.label)
    sure = ~np.asarray(found.unsettled)
    assert sure.mean() > 0.5
    mean = np.asarray(found.denoised) + np.asarray(p.samples.center, np.float64)
    reach = np.abs(np.asarray(p.samples.values, np.float64)).max()
    np.testing.assert_allclose(mean[sure], want.denoised[sure], rtol=0, atol=1e-5 * reach)
    np.testing.assert_allclose(np.asarray(found.entropy)[sure], want.entropy[sure], rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(found.top1_weight)[sure], want.top1_weight[sure], rtol=1e-4)


def share_left_out(found: Partial) -> np.ndarray:
    return np.asarray(found.skipped) / np.asarray(found.weight)


@long
def test_blocks_that_cannot_matter_are_skipped_and_change_nothing():
    """Late in time all but one sample's block weigh nothing: the mean is the same, and what was left out is accounted for."""
    p = problem(t=0.9, n=1500)
    found, loose = kernel(p), kernel(p, tolerance=0.5)
    check(found, p)
    assert (share_left_out(found) <= 2.0**-24).all()
    assert (share_left_out(loose) <= 0.5).all()


@slow
def test_a_tolerance_leaves_out_no_more_than_it_says():
    """Rows ordered by score, so that whole blocks are light: the mean errs by at most the share left out times the diameter."""
    p = problem(t=0.2, n=1500)
    order = np.argsort(-np.asarray(p.queries.direction)[0] @ np.asarray(p.samples.values, np.float64).T)
    samples = prepare(p.samples.values[order])
    with float64_scope():
        queries = CentredQueries.of(Queries(*(jnp.asarray(v[:1]) for v in (p.x, p.t, 1 - p.t, p.label))), samples)
    one = Problem(queries, samples, p.x[:1], p.t[:1], p.label[:1])
    found, want = kernel(one, tolerance=1e-2), definition(one)
    left_out = share_left_out(found)[0]
    assert 0 < left_out <= 1e-2
    diameter = 2 * float(np.sqrt(np.asarray(samples.square_norms).max()))
    assert np.linalg.norm(np.asarray(found.mean)[0] - want["mean"][0]) <= left_out * diameter + 1e-4
    np.testing.assert_allclose(found.weight[0], want["weight"][0], rtol=1e-4)


@slow
def test_a_tile_reads_the_blocks_of_its_classes_only():
    """Rows sorted by class: with the other blocks' rows poisoned, nothing changes, so they were not read."""
    rng = np.random.default_rng(0)
    n, d, b, step = 1024, 130, 64, SPLIT.samples
    y = rng.standard_normal((n, d)).astype(np.float32)
    labels = np.repeat(np.arange(8), n // 8).astype(np.int32)
    x = rng.standard_normal((b, d)).astype(np.float32)
    t, label = np.full(b, 0.1, np.float32), np.repeat([2, 5], b // 2).astype(np.int32)
    plain = by_class(jnp.asarray(y), jnp.asarray(labels))
    read = np.repeat([np.isin(labels[i : i + step], [2, 5]).any() for i in range(0, n, step)], step)
    assert 0 < read.sum() < n
    poisoned = dataclasses.replace(plain, values=jnp.asarray(np.where(read[:, None], y, np.nan)))
    with float64_scope():
        queries = CentredQueries.of(Queries(*(jnp.asarray(v) for v in (x, t, 1 - t, label))), plain)
    check(kernel(Problem(queries, poisoned, x, t, label), SPLIT), Problem(queries, plain, x, t, label))


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> str:
    """The product's own path to the kernel, on a device that has to interpret it."""

    def run(queries: CentredQueries, samples: Samples, how: api.PosteriorSettings) -> Partial:
        return pallas_tpu(queries, samples, full=how.full, blocks=SMALL, precision=how.precision, tolerance=how.tolerance, interpret=True)

    monkeypatch.setitem(api.IMPLEMENTATIONS, "pallas_tpu", api.Implementation(run, ("cpu",), (), ""))
    return "pallas_tpu"


@long
def test_an_oracle_of_the_fused_kernel_is_the_portable_one(interpreted):
    """Every output of `Oracle` by class, and the Jacobian: those of the portable implementation, which are checked against float64."""
    rng = np.random.default_rng(3)
    data, labels = rng.standard_normal((600, 6, 10)).astype(np.float32), rng.integers(0, 5, 600)
    t = np.linspace(0.02, 0.98, 24).astype(np.float32)
    x = t[:, None, None] * data[:24] + (1 - t)[:, None, None] * rng.standard_normal((24, 6, 10)).astype(np.float32)
    label = np.where(np.arange(24) % 2, labels[:24], -1)
    fused, portable = (Oracle(data, labels, implementation=name, precision="high") for name in (interpreted, None))
    found, want = fused(x, t, label), portable(x, t, label)
    # At "high" the kernel sums the heaviest sample y as two bfloat16 parts, which lack e: |e| <= 2^-16 |y| in each number, of either sign.
    # Refining takes y out as it is, so that a variance is off by 2 e·(y - c): 1.0e-4 at t = 0.44, where the top-1 weight is 1 - 9e-6.
    rounded = 2.0**-15 * np.sqrt(np.sum((data[want.top1_index] - data.mean(axis=0)) ** 4, axis=(1, 2)))
    for name in ("velocity", "denoised", "log_density", "top1_weight", "entropy", "effective_samples", "variance", "divergence"):
        a, b = (np.asarray(getattr(out, name), np.float64).reshape(24, -1) for out in (found, want))
        floor = rounded if name == "variance" else 1e-4
        assert (np.linalg.norm(a - b, axis=1) <= 2.0**-12 * np.linalg.norm(b, axis=1) + floor).all(), name
    assert (found.top1_index == want.top1_index).all()
    diameter = 2 * np.linalg.norm(data.reshape(600, -1), axis=1).max()
    assert (np.asarray(found.error_bound) <= 2.0**-24 * diameter).all()
    v = rng.standard_normal(x.shape).astype(np.float32)
    np.testing.assert_allclose(fused.jvp(x, t, v, label), portable.jvp(x, t, v, label), rtol=1e-3, atol=1e-3)


def test_the_fused_kernel_is_the_default_on_tpus_alone():
    """And says so where it does not run."""
    assert [name for name, one in api.IMPLEMENTATIONS.items() if "tpu" in one.default_on] == ["pallas_tpu"]
    with pytest.raises(NotImplementedError, match=r"'pallas_tpu' does not run on cpu: it is a TPU kernel; have: streaming"):
        Oracle(np.zeros((2, 2), np.float32), implementation="pallas_tpu")
    with pytest.raises(ValueError, match=r"TpuBlocks are those of pallas_tpu, and streaming takes BlockSizes"):
        Oracle(np.zeros((2, 2), np.float32), block_sizes=SMALL)


@slow
def test_the_fused_kernel_has_no_races():
    """Two tiles by three blocks, every copy and semaphore simulated: no read races a write."""
    p = problem(n=300, d=130, b=70, dtype="bfloat16", labels=True)
    blocks = TpuBlocks(64, 128, score_tile=(128, 128, 128), sum_tile=128)
    options = pltpu.InterpretParams(detect_races=True)
    check(kernel(p, blocks, interpret=options), p)
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call  # the only place that says what was found

    assert not interpret_pallas_call.races.races_found


@pytest.mark.long
@slow
def test_a_query_with_nan_is_nan_and_the_others_are_not():
    """It shares a tile, whose decisions are maxima over rows."""
    p = problem()
    direction = np.array(p.queries.direction)
    direction[3, 5] = np.nan
    with float64_scope():
        bad = dataclasses.replace(p, queries=dataclasses.replace(p.queries, direction=jnp.asarray(direction)))
        found = kernel(bad)
    rows = np.arange(len(p.x)) != 3
    assert np.isnan(found.weight[3])
    np.testing.assert_array_equal(found.mean[rows], kernel(p).mean[rows])


def test_blocks_that_do_not_fit_are_refused_with_the_numbers():
    p = problem()
    with pytest.raises(ValueError, match=r"blocks of \d+ queries by \d+ samples by \d+ columns need [\d.]+ MiB of VMEM, and there are 0"):
        kernel(p, generation=dataclasses.replace(GENERATIONS["v5e"], vmem=2**18))


def test_a_bad_tolerance_is_refused():
    p = problem()
    with pytest.raises(ValueError, match=r"tolerance must be in \[0, 1\), got 1.5"):
        kernel(p, tolerance=1.5)
