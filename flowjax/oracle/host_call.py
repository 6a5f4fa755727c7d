"""The velocity of an oracle in memory, computed by the CPU engine from within a compiled program."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.oracle.backends import InMemory
from flowjax.oracle.compiled import velocity_center
from flowjax.oracle.oracle import Oracle
from flowjax.path import Path
from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.cpu.differences import mean_from_differences
from kernels.posterior.types import Queries

_CALLS: "weakref.WeakKeyDictionary[InMemory, HostCall]" = weakref.WeakKeyDictionary()


class HostCall:
    """A function of NumPy arrays, equal to itself alone: programs are compiled once for each oracle that they call.

    It calls nothing of JAX, which may wait for the program that waits for it, and does not keep the samples alive.
    """

    def __init__(self, backend: InMemory):
        self._backend = weakref.ref(backend)

    def __call__(self, x: ArrayLike, coefficients: ArrayLike, label: ArrayLike) -> np.ndarray:
        """The velocity `[B, D]` float32 at x `[B, D]` float32.

        Args:
          coefficients: `[4, B, 2]` int32, the bits of α, σ, κ and A of each row in float64: JAX rounds float64 to float32 on the way.
        """
        backend = self._backend()
        if backend is None or backend.engine is None:
            raise RuntimeError("the oracle that this program calls is no more: keep it as long as the program runs")
        alpha, sigma, center, rate = np.array(coefficients, np.int32).view(np.float64)[..., 0]
        queries = Queries(np.asarray(x), alpha, sigma, np.asarray(label), center, rate)
        velocity = np.full(queries.x.shape, np.nan, np.float32)
        moments = backend.engine(backend.samples, queries, tolerance=0.0)
        left = np.ones(len(alpha), bool)
        if moments is not None:
            velocity[moments.answered], left = moments.velocity[moments.answered], ~moments.answered
        host, unit = backend.engine.host_samples(backend.samples), backend.unit
        sound = left & np.isfinite(queries.x).all(axis=1) & host.has_class(queries.label) & (sigma > 0)
        in_unit = Queries(queries.x.astype(np.float64) / unit, alpha, sigma / unit, queries.label)
        for row in np.flatnonzero(sound):
            mean = unit * mean_from_differences(host, in_unit, int(row))
            velocity[row] = rate[row] * (mean - center[row] * queries.x[row].astype(np.float64))
        return velocity


def host_call(oracle: Oracle) -> HostCall | None:
    """The call of an oracle whose samples the CPU engine has; None for others, and under tracing."""
    backend = oracle._backend
    if not isinstance(backend, InMemory) or not backend.on_host or backend.engine is None or not backend.engine.possible(oracle._spec.how):
        return None
    if backend not in _CALLS:
        _CALLS[backend] = HostCall(backend)
    return _CALLS[backend]


def velocity_by_host(
    call: HostCall, path: Path, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Int[Array, " B"] | None
) -> Float[Array, "B *shape"]:
    """The velocity at one time, inside a program that is compiled for a CPU."""
    with float64_scope():
        time = to64(jnp.broadcast_to(t, (len(x),)))
        coefficients = jnp.stack([path.alpha(time), path.sigma(time), velocity_center(path, time), path.A(time)])
        bits = jax.lax.bitcast_convert_type(coefficients, jnp.int32)
        flat = to32(x).reshape(len(x), -1)
        of_all = jnp.full(len(x), -1, jnp.int32) if label is None else label.astype(jnp.int32)
        shape = jax.ShapeDtypeStruct(flat.shape, jnp.float32)
        velocity = jax.pure_callback(call, shape, flat, bits, of_all, vmap_method="sequential")
    return velocity.reshape(x.shape)
