"""Float64 inside a float32 program, whatever the caller's `jax_enable_x64` is.

The oracle's O(B·N·D) work is float32. What decides its exactness is small - path coefficients, a handful of candidates a
query, the last subtraction - and is done in float64, in a scope that opens and closes inside the traced function, so that
callers only ever see float32. TPUs emulate float64; the few operations here do not show in the time.

One rule keeps this safe: whatever JAX does to a float64 region after it was traced happens outside the scope. So the custom_vmap and
custom_vjp rules of a caller stand outside the scope, and `argmax64` takes the place of `jnp.argmax`, which is lowered too late.
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array


@contextlib.contextmanager
def float64_scope() -> Iterator[None]:
    """A scope in which float64 arrays may be made. Give float32 back: a float64 array must not leave the caller's trace."""
    with jax.enable_x64(True):
        yield


def to64(x: Array) -> Array:
    """`x` in float64. Only inside `float64_scope`."""
    return x.astype(jnp.float64)


def to32(x: Array) -> Array:
    """`x` rounded once to float32."""
    return x.astype(jnp.float32)


def argmax64(x: Array) -> Array:
    """Index (int32) of the first maximum along the last axis."""
    index = jnp.arange(x.shape[-1], dtype=jnp.int32)
    return jnp.where(x == x.max(axis=-1, keepdims=True), index, x.shape[-1] - 1).min(axis=-1)
