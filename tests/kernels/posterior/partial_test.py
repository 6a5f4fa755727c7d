"""Partial is a commutative monoid: however the samples are split, and in whatever order the parts merge, the whole comes out."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kernels.posterior import partial as partials
from kernels.posterior.partial import NO_SAMPLE, Partial, Top

N, B, D, K = 23, 3, 4, 5
HIGHEST = jax.lax.Precision.HIGHEST


@functools.cache
def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores `[B, N]` over forty nats, with equal ones among them, rows `[N, D]` and prior weights `[N]`."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-40, 0, (B, N)).astype(np.float32)
    scores[:, rng.integers(N, size=6)] = scores[:, :1]
    return scores, (rng.standard_normal((N, D)) + 2).astype(np.float32), rng.integers(1, 5, N).astype(np.float32)


def top_of(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The K best of each row by sorting (score down, index up), and the next one's score; unfilled places are -inf."""
    order = np.lexsort((np.broadcast_to(np.arange(N), scores.shape), -scores), axis=-1)
    best = np.take_along_axis(scores, order, axis=1)
    return best[:, :K], np.where(np.isneginf(best), NO_SAMPLE, order).astype(np.int32)[:, :K], best[:, K]


@functools.partial(jax.jit, static_argnames="full")
def _of(scores, rows, center, norms, mass, top, full):
    return partials.of_block(scores, rows, center, norms, mass if full else None, top, precision=HIGHEST)


merge = jax.jit(partials.merge)


def part(seed: int, members: np.ndarray, full: bool = True) -> Partial:
    """The Partial of some of the samples; `members` is `[N]`, or `[B, N]` where each query sees others."""
    scores, rows, prior = problem(seed)
    members = np.broadcast_to(members, (B, N))
    scores = np.where(members, scores, -np.inf).astype(np.float32)
    center = np.full(D, 2, np.float32)
    norms = np.square(rows - center).sum(1)
    top = Top(*map(jnp.asarray, top_of(scores)))
    return _of(scores, rows, center, norms, (members * prior).sum(1).astype(np.float32), top, full)


def definition(seed: int, members: np.ndarray) -> dict[str, np.ndarray]:
    """What a Partial of these samples must hold: float64, from the docstring of each field."""
    scores, rows, prior = problem(seed)
    members = np.broadcast_to(members, (B, N))
    s = np.where(members, scores.astype(np.float64), -np.inf)
    peak = s.max(1)
    z = s - np.where(np.isneginf(peak), 0, peak)[:, None]
    w = np.exp(z)
    weight = w.sum(1)
    centred = rows.astype(np.float64) - 2
    mean = w @ centred / np.maximum(weight, 1e-300)[:, None]
    best, index, rest_peak = top_of(s)
    return {
        "peak": peak,
        "weight": weight,
        "mean": mean,
        "top_score": best,
        "top_index": index,
        "rest_peak": rest_peak,
        "second": (w * np.square(centred - mean[:, None]).sum(-1)).sum(1),
        "weight_square": (w * w).sum(1),
        "weighted_score": np.where(w > 0, w * np.where(w > 0, z, 0), 0).sum(1),
        "mass": (members * prior).sum(1),
    }


def check(found: Partial, seed: int, members: np.ndarray, full: bool = True) -> None:
    for name, wanted in definition(seed, members).items():
        value = getattr(found, name)
        if not full and name in ("weight_square", "weighted_score", "mass"):
            assert value is None
        elif name == "top_index":
            np.testing.assert_array_equal(value, wanted)
        else:
            # The longest sum has N terms, each off by a few units in the last place of scores up to 40.
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=2e-5 if name == "second" else 1e-6, err_msg=name)


def unit(full: bool = True) -> Partial:
    return partials.empty(B, D, candidates=K, full=full, dtype=jnp.float32)


def equal(a: Partial, b: Partial) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


seeds = st.integers(0, 5)
owners = st.lists(st.integers(0, 3), min_size=N, max_size=N).map(np.array)


@pytest.mark.slow
@given(seeds, owners, st.permutations(range(4)), st.booleans())
def test_parts_in_any_order_merge_to_the_whole(seed, owner, order, full):
    """Any split into four parts, empty ones too, merged from the left in any order, is the definition over all samples."""
    total = functools.reduce(merge, [part(seed, owner == p, full) for p in order])
    check(total, seed, np.ones(N, bool), full)
    assert total.full == full


@given(seeds, owners)
def test_merge_is_associative(seed, owner):
    """(a b) (c d) and ((a b) c) d are both the whole."""
    a, b, c, d = (part(seed, owner == p) for p in range(4))
    check(merge(merge(a, b), merge(c, d)), seed, np.ones(N, bool))
    check(merge(a, merge(b, merge(c, d))), seed, np.ones(N, bool))


@given(seeds, owners)
def test_merge_commutes(seed, owner):
    """Either order of two parts: the same candidates, and the same moments to rounding."""
    a, b = part(seed, owner < 2), part(seed, owner >= 2)
    one, other = merge(a, b), merge(b, a)
    np.testing.assert_array_equal(one.top_index, other.top_index)
    np.testing.assert_array_equal(one.peak, other.peak)
    check(one, seed, np.ones(N, bool))
    check(other, seed, np.ones(N, bool))


@given(seeds, owners, st.booleans())
def test_empty_is_the_unit(seed, owner, full):
    """Nothing merged to a part, on either side, changes no bit of it."""
    some = part(seed, owner == 0, full)
    equal(merge(some, unit(full)), some)
    equal(merge(unit(full), some), some)


@given(seeds, owners)
def test_each_query_may_see_its_own_samples(seed, owner):
    """Class masks: query q sees the samples of owner q only, and some see none at all."""
    members = owner == np.arange(B)[:, None]
    members[0] = False
    total = functools.reduce(merge, [part(seed, members & (np.arange(N) % 3 == p)) for p in range(3)])
    check(total, seed, members)


def test_empty_merged_with_empty_is_empty():
    """No NaN from -inf less -inf: the unit, and blocks in which no sample counts, stay empty."""
    nobody = part(0, np.zeros(N, bool))
    for both in (merge(unit(), unit()), merge(nobody, nobody), merge(unit(), nobody)):
        check(both, 0, np.zeros(N, bool))
        equal(both, unit())


def test_one_sample():
    """N = 1: all the weight, no spread."""
    alone = np.arange(N) == 7
    total = merge(part(0, alone), unit())
    check(total, 0, alone)
    np.testing.assert_array_equal(total.weight, 1)
    np.testing.assert_array_equal(total.second, 0)
    np.testing.assert_array_equal(total.top_index, [[7] + [NO_SAMPLE] * (K - 1)] * B)


@pytest.mark.parametrize("gap", [100.0, 1e4, 1e8])
def test_a_part_far_below_the_peak_vanishes_cleanly(gap):
    """Its weight underflows to 0; nothing becomes NaN or infinite."""
    high, low = part(1, np.arange(N) < 9), part(1, np.arange(N) >= 9)
    low = Partial(
        **{
            **vars(low),
            "peak": low.peak - jnp.float32(gap),
            "top_score": low.top_score - jnp.float32(gap),
            "rest_peak": low.rest_peak - jnp.float32(gap),
        }
    )
    for total in (merge(high, low), merge(low, high)):
        for name in ("weight", "mean", "second", "weight_square", "weighted_score"):
            np.testing.assert_allclose(getattr(total, name), getattr(high, name), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(total.top_index[:, :5], high.top_index)


def test_equal_scores_keep_the_lowest_indices():
    """More equal scores than places: the K lowest indices, whichever part they are in."""
    equal_scores, no_rest = jnp.zeros((1, 3), jnp.float32), jnp.full(1, -jnp.inf)
    a, b = (Top(equal_scores, jnp.array([index], jnp.int32), no_rest) for index in ([3, 8, 9], [1, 4, 20]))
    found = partials.merge_top(a, b)
    np.testing.assert_array_equal(found.index, [[1, 3, 4]])
    np.testing.assert_array_equal(found.rest_peak, 0)  # those dropped are as good
