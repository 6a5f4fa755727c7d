"""The oracle under JAX's transformations, its derivatives, and what it refuses: each against float64 or a plain call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.oracle import Oracle
from flowjax.path import RectifiedFlow, VariancePreserving
from tests import float64_oracle as exact

N, SHAPE, D, B = 40, (2, 3), 6, 6
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((N, *SHAPE)).astype(np.float32)
LABELS = (np.arange(N) % 3).astype(np.int32)
T = np.array([0.02, 0.2, 0.4, 0.6, 0.8, 0.95], np.float32)
X = (T[:, None, None] * DATA[:B] + (1 - T)[:, None, None] * RNG.standard_normal((B, *SHAPE))).astype(np.float32)
LABEL = np.array([-1, 0, 1, 2, -1, 2], np.int32)
V = RNG.standard_normal((B, *SHAPE)).astype(np.float32)
ORACLE = Oracle(DATA, LABELS)
HIGH = Oracle(DATA, LABELS, precision="high")
"""Of the same numbers on these data, and compiled in a third of the time: for what JAX does with an oracle."""
PROGRAM = jax.jit(lambda oracle, x, t, label: oracle(x, t, label))


def same(a: Any, b: Any, rtol: float = 2e-6) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def float64_jacobian(i: int, name: str = exact.RECTIFIED, label: int = -1) -> np.ndarray:
    """Central differences of the float64 velocity: `[D, D]`, row = output."""
    rows, x, h = DATA[(label == LABELS) | (label == -1)], X[i].ravel().astype(np.float64), 1e-6
    sides = [[exact.velocity(rows, x + side * h * e, T[i], name) for e in np.eye(D)] for side in (1, -1)]
    return (np.array(sides[0]) - np.array(sides[1])).T / (2 * h)


@pytest.fixture(scope="module")
def plain():
    return ORACLE(X, T, LABEL)


@pytest.mark.parametrize(
    ("path", "name"), [(RectifiedFlow(), exact.RECTIFIED), pytest.param(VariancePreserving(), exact.VP, marks=pytest.mark.slow)]
)
def test_jvp_is_the_jacobian_of_the_float64_velocity(path, name):
    """Row by row, with labels; and since J is symmetric it serves as the VJP."""
    oracle = Oracle(DATA, LABELS, path=path)
    columns = np.stack([oracle.jvp(X, T, np.broadcast_to(e.reshape(SHAPE), X.shape), LABEL) for e in np.eye(D, dtype=np.float32)], -1)
    for i in range(B):
        wanted = float64_jacobian(i, name, LABEL[i])
        found = columns[i].reshape(D, D)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_allclose(found, found.T, rtol=1e-5, atol=1e-5 * np.abs(found).max())


def test_divergence_is_the_trace_of_the_jvp(plain):
    """The sum over all basis vectors of e·(J e)."""
    columns = np.stack([ORACLE.jvp(X, T, np.broadcast_to(e.reshape(SHAPE), X.shape), LABEL) for e in np.eye(D, dtype=np.float32)], -1)
    np.testing.assert_allclose(plain.divergence, np.trace(columns.reshape(B, D, D), axis1=1, axis2=2), rtol=1e-5)


@pytest.mark.long
def test_jvp_at_the_end_of_time():
    """At t = 1 the Jacobian is infinite away from ties: -inf · v, and never a number made up."""
    found = ORACLE.jvp(DATA[:B], 1.0, np.ones_like(V))
    assert not np.isfinite(found).any()


@pytest.mark.slow
def test_vjp_is_the_jacobian_of_the_float64_velocity():
    """Reverse mode, with labels."""

    def inner(x: Any) -> Any:
        return jnp.sum(ORACLE(x, T, LABEL, moments="velocity").velocity * V)

    found = np.asarray(jax.grad(inner)(X)).reshape(B, D)
    for i in range(B):
        wanted = V[i].ravel() @ float64_jacobian(i, label=LABEL[i])
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "field", ["denoised", "log_density", "top1_weight", "entropy", "effective_samples", "variance", "cfm_gap", "divergence"]
)
def test_other_outputs_refuse_a_gradient(field):
    """NotImplementedError that names the output."""
    with pytest.raises(NotImplementedError, match=f"OracleOutput.{field} is not differentiable"):
        jax.make_jaxpr(jax.grad(lambda x: getattr(ORACLE(x, T), field).sum()))(X)


def test_time_and_data_refuse_a_gradient():
    """NotImplementedError, not a zero."""
    with pytest.raises(NotImplementedError, match="x_t only"):
        jax.make_jaxpr(jax.grad(lambda t: ORACLE(X, t).velocity.sum()))(T)
    with pytest.raises(NotImplementedError, match="x_t only"):
        jax.make_jaxpr(jax.grad(lambda data: Oracle(data)(X, T).velocity.sum()))(DATA)


@pytest.mark.slow
def test_jit_with_the_oracle_as_argument_is_the_plain_call(plain):
    """And the data are an argument of the program: no constant of its size."""
    same(PROGRAM(ORACLE, X, T, LABEL), plain)
    other = Oracle(2 * DATA, LABELS)
    wanted = exact.oracle(2 * DATA, X, T, labels=LABELS, label=LABEL)
    np.testing.assert_allclose(PROGRAM(other, X, T, LABEL).velocity, wanted.velocity, rtol=1e-4, atol=1e-5)
    assert PROGRAM._cache_size() == 1


@pytest.mark.slow
def test_vmap_folds_into_the_batch(plain):
    """vmap over x, t and label, alone or together, is a loop of plain calls."""
    over = jax.vmap(lambda x, t, label: HIGH(x[None], t, label[None]))(X, T, LABEL)
    same(jax.tree.map(lambda v: v[:, 0], over), plain)


@pytest.mark.slow
def test_vmap_over_times_alone(plain):
    """The queries are not batched, the times are: every pair is answered."""
    times = jax.vmap(lambda t: HIGH(X, t, LABEL, moments="velocity").velocity)(jnp.stack([T, T[::-1]]))
    same(times[0], plain.velocity)
    wanted = exact.oracle(DATA, X, T[::-1], labels=LABELS, label=LABEL)
    np.testing.assert_allclose(times[1], wanted.velocity, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_vmap_of_grad_is_a_loop_of_grads():
    """A batch of pulled-back vectors at once, against the float64 Jacobian."""

    def pulled(x: Any, t: Any, v: Any) -> Any:
        return jax.grad(lambda y: jnp.sum(HIGH(y[None], t, moments="velocity").velocity * v))(x)

    found = np.asarray(jax.vmap(pulled)(X, T, V)).reshape(B, D)
    for i in range(B):
        wanted = V[i].ravel() @ float64_jacobian(i)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_a_solver_in_scan_with_checkpoint_is_differentiable():
    """Euler steps by `lax.scan` with rematerialised velocities, and its gradient, against float64 and its differences."""
    steps = np.array([0.3, 0.4, 0.5], np.float32)

    @jax.jit
    def end(oracle: Oracle, x: Any) -> Any:
        def step(y: Any, t: Any) -> tuple[Any, None]:
            return y + 0.1 * jax.checkpoint(lambda z: oracle(z, t, moments="velocity").velocity)(y), None

        return jax.lax.scan(step, x, steps)[0]

    def end64(y: np.ndarray) -> np.ndarray:
        for t in steps:
            y = y + 0.1 * exact.velocity(DATA, y, t)
        return y

    found = jax.vmap(jax.grad(lambda x: jnp.sum(end(HIGH, x[None])[0] * V[0])))(X[:2])
    np.testing.assert_allclose(end(HIGH, X[:1])[0].ravel(), end64(X[0].ravel().astype(np.float64)), rtol=1e-5, atol=1e-6)
    for i in range(2):
        x = X[i].ravel().astype(np.float64)
        wanted = [(end64(x + 1e-6 * e) - end64(x - 1e-6 * e)) @ V[0].ravel() / 2e-6 for e in np.eye(D)]
        np.testing.assert_allclose(found[i].ravel(), wanted, rtol=2e-4, atol=2e-4)


def test_velocity_alone_equals_that_of_all_moments(plain):
    """`moments="velocity"` computes velocity and denoised and leaves the rest None."""
    out = ORACLE(X, T, LABEL, moments="velocity")
    same((out.velocity, out.denoised), (plain.velocity, plain.denoised))
    assert {key for key, value in vars(out).items() if value is not None} == {"velocity", "denoised"}


@pytest.mark.slow
def test_results_are_float32_whatever_the_caller_enables(plain):
    """Under `jax_enable_x64`, and given float64 queries: the same float32 numbers."""
    with jax.enable_x64(True):
        out = Oracle(DATA.astype(np.float64), LABELS.astype(np.int64))(X.astype(np.float64), T.astype(np.float64), LABEL.astype(np.int64))
        product = HIGH.jvp(X, T, V, LABEL)
        of_x = jax.grad(lambda x: jnp.sum(HIGH(x, T, LABEL, moments="velocity").velocity * V))(jnp.asarray(X))
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    same(out, plain)
    same(product, HIGH.jvp(X, T, V, LABEL))
    same(of_x, product)
    assert product.dtype == of_x.dtype == jnp.float32


def test_oracle_is_a_pytree(plain):
    """Flattening and building again loses nothing; `tree.map` reaches the samples."""
    leaves, structure = jax.tree.flatten(ORACLE)
    again = jax.tree.unflatten(structure, leaves)
    assert again.path == ORACLE.path
    same(again(X, T, LABEL), plain, rtol=0)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert isinstance(jax.tree.map(lambda leaf: leaf, ORACLE), Oracle)
    assert len(jax.tree.leaves(plain)) == 11


def test_under_tracing_a_bad_row_gives_nan_and_leaves_the_others_alone(plain):
    """t outside [0, 1], NaN in t or x, a class without samples: values that a trace cannot see."""
    x, t, label = X.copy(), T.copy(), LABEL.copy()
    x[0, 0, 0], t[1], t[2], label[3] = np.nan, 1.5, -0.1, 7
    out = PROGRAM(ORACLE, x, t, label)
    for key, value in vars(out).items():
        if key == "top1_index":
            np.testing.assert_array_equal(value[:4], -1)
        else:
            assert np.isnan(value[:4]).all(), key
        np.testing.assert_allclose(value[4:], getattr(plain, key)[4:], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ORACLE(X, 1.5), r"t must lie in \[0, 1\], got 1.5"),
        (lambda: ORACLE(X, np.array([0.1, 0.2, -0.5, 0.3, 0.3, 0.3])), r"t must lie in \[0, 1\], got -0.5"),
        (lambda: ORACLE(X, np.nan), r"t must lie in \[0, 1\], got nan"),
        (lambda: ORACLE(X, T[:2]), r"t must be a scalar or of shape \(6,\), got shape \(2,\)"),
        (lambda: ORACLE(np.where(np.arange(B)[:, None, None] == 4, np.nan, X), 0.5), "x_t has NaN or infinity in row 4"),
        (lambda: ORACLE(X * np.inf, 0.5), "x_t has NaN or infinity in row 0"),
        (lambda: ORACLE(X[0], 0.5), r"x_t must .*2, 3\).*got \(2, 3\)"),
        (lambda: ORACLE(X.reshape(B, D), 0.5), r"x_t must .*2, 3\).*got \(6, 6\)"),
        (lambda: ORACLE(np.float32(0), 0.5), "x_t must "),
        (lambda: ORACLE(X, 0.5, 3), "label 3 has no samples; classes with samples: 0, 1, 2"),
        (lambda: ORACLE(X, 0.5, -2), "label -2 has no samples"),
        (lambda: ORACLE(X, 0.5, LABEL[:2]), r"label must be an integer or integers of shape \(6,\)"),
        (lambda: ORACLE(X, 0.5, 1.0), "label must be an integer"),
        (lambda: ORACLE.jvp(X, 0.5, V[:2]), r"v must have x_t's shape \(6, 2, 3\), got \(2, 2, 3\)"),
        (lambda: ORACLE.jvp(X, 2, V), r"t must lie in \[0, 1\]"),
        (lambda: Oracle(DATA)(X, 0.5, 0), "label was given, but the oracle has no labels"),
        (lambda: Oracle(np.where(np.arange(N)[:, None, None] > 37, np.nan, DATA)), "data has NaN or infinity in 2 of 40 samples.*index 38"),
        (lambda: Oracle(np.zeros((0, 3))), r"data must hold at least one sample.*\(0, 3\)"),
        (lambda: Oracle(np.array(["a", "b"])), "data must be real numbers"),
        (lambda: Oracle(1j * DATA), "data must be real numbers, got dtype complex"),
        (lambda: Oracle(DATA, LABELS[:3]), r"labels must be 40 integers, one per sample; got int32 of shape \(3,\)"),
        (lambda: Oracle(DATA, LABELS * 0.5), "labels must be 40 integers"),
        (lambda: Oracle(DATA, LABELS - 1), "labels must be >= 0.*got -1"),
        (lambda: Oracle(DATA, counts=np.zeros(N)), "counts must be 40 positive numbers"),
        (lambda: Oracle(DATA, counts=np.ones(3)), r"counts must be 40 positive numbers.*\(3,\)"),
        (lambda: Oracle(DATA, path="cosine"), "path must be a flowjax.path.Path, got 'cosine'"),
        (lambda: Oracle(DATA, precision="exact"), "precision must be one of highest, high, default; got 'exact'"),
    ],
)
def test_wrong_input_is_named(call, message):
    """ValueError with the argument, the value and what was expected."""
    with pytest.raises(ValueError, match=message):
        call()


def test_an_oracle_may_be_built_inside_jit():
    """Of data that are known there: the same velocity, and NaN in them is still refused."""
    wanted = Oracle(DATA)(X, T).velocity
    np.testing.assert_allclose(
        jax.jit(lambda x: Oracle(DATA, precision="high")(x, T, moments="velocity").velocity)(X), wanted, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match="data has NaN or infinity in 1 of"):
        jax.jit(lambda x: Oracle(np.where(np.arange(len(DATA))[:, None] == 3, np.nan, np.reshape(DATA, (len(DATA), -1))))(x, T).velocity)(X)


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_is_a_share(tolerance):
    """And on this device, where nothing is left out, any of them is kept: the bound is 0."""
    with pytest.raises(ValueError, match=r"tolerance is the share of a query's weight that may be left out, in \[0, 1\); got"):
        Oracle(DATA, tolerance=tolerance)
    assert (np.asarray(Oracle(DATA, tolerance=0.1)(X, T).error_bound) == 0).all()


def test_what_is_not_implemented_is_named():
    """NotImplementedError for an unknown implementation and for vmap over the data."""
    with pytest.raises(NotImplementedError, match="implementation 'magic' is not available here; have: streaming, pruned"):
        Oracle(DATA, implementation="magic")
    leaves, structure = jax.tree.flatten(ORACLE)
    many = jax.tree.unflatten(structure, [jnp.stack([leaf, leaf]) for leaf in leaves])
    with pytest.raises(NotImplementedError, match="vmap over the oracle's data"):
        jax.vmap(lambda oracle: oracle(X, T, LABEL).velocity)(many)
