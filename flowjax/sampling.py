"""Sampling along a velocity field, from noise to data, by diffrax's solvers; trajectories, and likelihoods of samples."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.fields import Field, Label, OracleField, divergence, on_host
from flowjax.schedules import checked_times

SOLVERS = {"euler": "Euler", "heun": "Heun", "midpoint": "Midpoint", "dopri5": "Dopri5"}
"""diffrax's name of each."""
ADAPTIVE = ("dopri5",)


@dataclasses.dataclass(frozen=True)
class Solver:
    """The solver of a velocity field's differential equation. Static under `jax.jit`.

    Attributes:
      name: euler, heun or midpoint take the grid's steps; dopri5 chooses its own, by an error estimate.
      tolerance: relative and absolute, of dopri5's steps; the others ignore it.

    Raises:
      ValueError: an unknown name, a tolerance that is not above 0.
    """

    name: str = "euler"
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise ValueError(f"solver = {self.name!r}: expected one of {', '.join(SOLVERS)}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"solver tolerance = {self.tolerance}: expected a number between 0 and 1")


EULER, HEUN = Solver("euler"), Solver("heun")


Program = TypeVar("Program", bound=Callable[..., Any])


def checked_edges(t: ArrayLike) -> Float[Array, " T"]:
    """The edges of a solver's steps in float32, validated where they are concrete. Of traced edges only the number is validated."""
    if isinstance(t, jax.core.Tracer):
        if t.ndim != 1 or len(t) < 2:
            raise ValueError(f"t has shape {t.shape}: expected the edges of at least one step, [T] with T >= 2")
        return t
    return jnp.asarray(checked_times(np.asarray(t, np.float32), at_least=2))


def _on_checked_edges(program: Program) -> Program:
    """A jitted program of (field, x_0, t, ...) that validates its edges first, and has oracles computed by the CPU engine where that is
    possible; `__wrapped__` is the program."""

    @functools.wraps(program)
    def run(field: Field, x_0: Any, t: Any, label: Any = None, *, solver: Solver = EULER) -> Any:
        edges = checked_edges(t)
        return program(on_host(field, x_0, edges, label), x_0, edges, label, solver=solver)

    return run  # type: ignore[return-value]


class Trajectory(NamedTuple):
    """A run of the sampler, at the edges of its grid."""

    t: Float[Array, " T"]
    x: Float[Array, "T B *shape"]
    one_step: Float[Array, "T B *shape"]
    """The result of one Euler step from t to 1, `x + (1 - t) u(x, t)`; at the last edge x itself."""


@_on_checked_edges
@functools.partial(jax.jit, static_argnames="solver")
def sample(
    field: Field, x_0: Float[Array, "B *shape"], t: Float[Array, " T"], label: Label = None, *, solver: Solver = EULER
) -> Float[Array, "B *shape"]:
    """Follow `dx/dt = field(x, t, label)` from x_0 at t[0] to t[-1].

    The last step is Euler's, whatever the solver: no field is evaluated at t[-1], where a marginal velocity has no value at t = 1. From
    the edge before it an oracle's path is all but straight.

    Args:
      field: a pytree; it is an argument of the jitted program, so that fields of one structure share it.
      x_0: where to start: noise, at t = 0.
      t: `[T]` the edges of T - 1 steps, rising (`uniform_timesteps`, `shift`); float32.
      label: `[B]`, or None.

    Returns:
      x at t[-1], float32.

    Raises:
      ValueError: t has fewer than two edges; in float32 one is NaN, outside [0, 1], or not above the one before (not seen under tracing).
    """
    before = _solve(field, x_0, t[:-1], label, solver)[0]
    return _euler(field, before, t[-2], t[-1], label)


@_on_checked_edges
@functools.partial(jax.jit, static_argnames="solver")
def states(
    field: Field, x_0: Float[Array, "B *shape"], t: Float[Array, " T"], label: Label = None, *, solver: Solver = EULER
) -> Float[Array, "T B *shape"]:
    """The same as `sample`, with x at every edge of the grid."""
    x = _solve(field, x_0, t[:-1], label, solver, at=t[:-1])
    return jnp.concatenate([x, _euler(field, x[-1], t[-2], t[-1], label)[None]])


@_on_checked_edges
@functools.partial(jax.jit, static_argnames="solver")
def trajectory(
    field: Field, x_0: Float[Array, "B *shape"], t: Float[Array, " T"], label: Label = None, *, solver: Solver = EULER
) -> Trajectory:
    """The same as `states`, with the one-step prediction at every edge of the grid, too. Each prediction is one evaluation more.

    References:
      arXiv 2512.02826, finding 4.
    """
    x = states(field, x_0, t, label, solver=solver)
    slopes = jax.lax.map(lambda at: field(at[0], at[1], label), (x[:-1], t[:-1]))
    left = (1 - t[:-1]).reshape(-1, *[1] * (x.ndim - 1))
    return Trajectory(t, x, jnp.concatenate([x[:-1] + left * slopes, x[-1:]]))


def _euler(field: Field, x: Array, start: Array, end: Array, label: Label) -> Array:
    return x + (end - start) * field(x, start, label)


def _solve(field: Callable[..., Any], x_0: Any, t: Array, label: Label, solver: Solver, at: Array | None = None) -> Any:
    """The states at the times `at`, or the one at t[-1] (leaves `[T, ...]`), from x_0 at t[0] on."""
    import diffrax

    if len(t) == 1:
        return jax.tree.map(lambda leaf: leaf[None], x_0)
    adaptive = solver.name in ADAPTIVE
    steps = diffrax.PIDController(rtol=solver.tolerance, atol=solver.tolerance) if adaptive else diffrax.StepTo(t)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda time, x, held: held[0](x, time, held[1])),
        getattr(diffrax, SOLVERS[solver.name])(),
        t[0],
        t[-1],
        t[1] - t[0] if adaptive else None,
        x_0,
        args=(field, label),
        saveat=diffrax.SaveAt(t1=True) if at is None else diffrax.SaveAt(ts=at),
        stepsize_controller=steps,
        max_steps=None,
        throw=False,  # its check is a callback, which would bring all to one device
    ).ys


@functools.partial(jax.jit, static_argnames=("solver", "num_probes"))
def _log_likelihood(
    field: Field, x: Array, t: Array, label: Label, key: Array | None, solver: Solver, num_probes: int
) -> Float[Array, " B"]:
    probes = None if key is None else jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)

    @jax.tree_util.Partial
    def joint(state: tuple[Array, Array], time: Array, label: Label) -> tuple[Array, Array]:
        return field(state[0], time, label), divergence(field, state[0], time, label, probes)

    x_0, gained = (leaf[0] for leaf in _solve(joint, (x, jnp.zeros(len(x), x.dtype)), t[::-1], label, solver))
    rows = x_0.reshape(len(x), -1)
    return -0.5 * jnp.sum(rows**2, axis=1) - 0.5 * rows.shape[1] * float(np.log(2 * np.pi)) + gained


def log_likelihood(
    field: Field,
    x: Float[Array, "B *shape"],
    t: ArrayLike,
    label: Label = None,
    *,
    solver: Solver = HEUN,
    num_probes: int = 0,
    seed: int = 0,
) -> Float[Array, " B"]:
    """`log p(x)` at t[-1] of the flow's density: `log N(x_0; 0, I) - ∫ ∇·u dt` along the path that ends in x, followed backwards.

    Args:
      x: where the path ends.
      t: `[T]` a rising grid from 0 to the time at which the density is asked for. An oracle has none at t = 1: end before it.
      num_probes: of Hutchinson's estimate of the divergence, the same all along a path; 0: exact, which a model pays with D products
        with its Jacobian at every step. An oracle's is exact at no cost.
      seed: of the probes.

    Returns:
      `[B]`, nats.

    Raises:
      ValueError: num_probes below 0; t as in `sample`, or not from 0; an oracle's field, and t ends at 1.

    References:
      Chen et al. 2018 (instantaneous change of variables); Grathwohl et al. 2019.
    """
    if num_probes < 0:
        raise ValueError(f"num_probes = {num_probes}: expected 0, for the exact divergence, or more")
    key = jax.random.key(seed) if num_probes else None
    edges = checked_edges(t)
    if not isinstance(edges, jax.core.Tracer):
        if edges[0] != 0:
            raise ValueError(f"t begins at {float(edges[0])}: expected 0, where the density of noise is known")
        if edges[-1] == 1 and _has_oracle(field):
            raise ValueError("t ends at 1, where an oracle has no density: end the grid before it")
    return _log_likelihood(field, x, edges, label, key, solver, num_probes)


def _has_oracle(field: Field) -> bool:
    is_oracle = lambda part: isinstance(part, OracleField)  # noqa: E731
    return any(is_oracle(part) for part in jax.tree.leaves(field, is_leaf=is_oracle))


def draw_labels(n: int, num_classes: int, how: str = "equal", seed: int = 0) -> Int[np.ndarray, " n"]:
    """Labels to sample by: "equal" takes the classes in turn, "random" draws each uniformly.

    Raises:
      ValueError: another word; fewer than one sample or class.
    """
    if how not in ("equal", "random"):
        raise ValueError(f"labels = {how!r}: expected equal or random")
    if n < 1 or num_classes < 1:
        raise ValueError(f"n = {n}, num_classes = {num_classes}: expected at least 1 of both")
    if how == "equal":
        return np.arange(n, dtype=np.int32) % num_classes
    return np.random.default_rng([seed, 1]).integers(num_classes, size=n).astype(np.int32)


def labels_in_proportion(labels: Int[np.ndarray, " N"], n: int) -> Int[np.ndarray, " n"]:
    """Labels to sample by where samples are compared with real ones: each class as often as among `labels`, to one sample.

    Classes come as evenly in turn as that allows; of equal sizes as `draw_labels` has them, 0, 1, 2, ...

    Raises:
      ValueError: fewer than one sample, or no labels.
    """
    if n < 1 or not len(labels):
        raise ValueError(f"n = {n}, {len(labels)} labels: expected at least 1 of both")
    classes, counts = np.unique(labels, return_counts=True)
    share = counts / len(labels)
    own = [np.arange(np.ceil(n * part) + 1) for part in share]
    due = np.concatenate([(turns + 0.5) / part for turns, part in zip(own, share, strict=True)])
    whose = np.repeat(classes, [len(turns) for turns in own])
    return whose[np.lexsort((whose, due))][:n].astype(np.int32)


def noise(n: int, shape: tuple[int, ...], seed: int) -> Float[np.ndarray, "n ..."]:
    """The first n draws of x_0 ~ N(0, I) of a seed, float32."""
    return np.random.default_rng([seed, 0]).standard_normal((n, *shape), np.float32)


def in_batches(
    program: Callable[..., Any], x_0: Float[np.ndarray, "N *shape"], label: ArrayLike | None, batch_size: int, mesh: Mesh | None = None
) -> Iterator[Any]:
    """`program(x, label)` of `batch_size` rows after the other, as NumPy arrays; the last batch is filled up: one program is compiled.

    Args:
      program: takes x `[batch_size, *shape]` and its labels or None; the first axis of each of its results is the batch's.
      mesh: devices that each batch is distributed over, along all axes of the mesh.

    Raises:
      ValueError: batch_size below 1, or not a multiple of the mesh's devices.
    """
    size = operator.index(batch_size)
    devices = 1 if mesh is None else mesh.size
    if size < 1 or size % devices:
        raise ValueError(f"batch_size = {batch_size}: expected a multiple of the {devices} devices, at least 1")
    labels = None if label is None else np.asarray(label, np.int32)
    place = jnp.asarray if mesh is None else lambda rows: jax.device_put(rows, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    for start in range(0, len(x_0), size):
        rows = np.arange(start, start + size).clip(max=len(x_0) - 1)
        kept = min(size, len(x_0) - start)
        found = program(place(x_0[rows]), None if labels is None else place(labels[rows]))
        yield jax.tree.map(lambda leaf, kept=kept: np.asarray(leaf)[:kept], found)
