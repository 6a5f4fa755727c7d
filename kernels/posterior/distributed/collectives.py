"""Reductions over the devices that share the samples, by which all of them compute the same posterior.

Inside `shard_map` only. Everything is written for the case where each device has samples of its own; with `axis_name=None` one device
has all, and each method is the identity or the plain arithmetic.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from kernels.float64 import to32, to64

QUANTUM_BITS = 20
"""Quanta in the bound of a sum: float32 counts 2²⁴ of them exactly, so heads that add up to the bound, or to several times that, are
added without rounding, on any number of devices."""


@dataclasses.dataclass(frozen=True)
class Shards:
    """The devices along one axis of a mesh, or, with `axis_name=None`, the one device that has all the samples.

    Float64 crosses devices as float32: TPUs have no float64 maximum, and what they make of a float64 sum is an all-gather, whose bytes
    grow with the number of devices.
    """

    axis_name: str | None = None

    @property
    def count(self) -> int:
        """How many devices there are."""
        return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)

    @property
    def number(self) -> int | Array:
        """Which of them this one is."""
        return 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name)

    def sum(self, *values: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], ...]:
        """Sums of float64 arrays of one shape, each rounded once to float32 on every device: one collective for all of them."""
        if self.axis_name is None:
            return values
        return tuple(to64(total) for total in jax.lax.psum(jnp.stack([to32(v) for v in values]), self.axis_name))

    def any(self, flag: Bool[Array, "*shape"]) -> Bool[Array, "*shape"]:
        """Whether it is true on some device. All devices get the same bits: safe to branch and loop on."""
        return flag if self.axis_name is None else jax.lax.pmax(flag.astype(jnp.int32), self.axis_name) > 0

    def max(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """The largest. Float64 is compared, and returned, to 48 bits: see `rounded`."""
        if self.axis_name is None:
            return x
        if x.dtype != jnp.float64:
            return jax.lax.pmax(x, self.axis_name)
        head, tail = _pair(x)
        most = jax.lax.pmax(head, self.axis_name)
        return to64(most) + to64(jax.lax.pmax(jnp.where(head == most, tail, -jnp.inf), self.axis_name))

    def min(self, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """The smallest; as `max`."""
        return -self.max(-x)

    def rounded(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`x` as `max` returns it, so that the device that holds the maximum recognises it."""
        if self.axis_name is None:
            return x
        head, tail = _pair(x)
        return to64(head) + to64(tail)

    def mean(
        self, moment: Float[Array, "B D"], weight: Float[Array, " B"], radius: Float[Array, ""]
    ) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
        """`Σ moment / Σ weight` over the devices and `Σ weight`, to float64 rounding, in one collective of 8·B·D bytes.

        Float32 would not do: late in time, where near-duplicates on two devices share the weight, a velocity is a difference 10³ times
        smaller than the mean. So each term is split into a multiple of a common quantum, which float32 adds without rounding, and a
        remainder 2²¹ times smaller.

        Args:
          moment: Σ w y, |moment| <= radius · weight on each device.
          weight: Σ w, at least 0.
        """
        if self.axis_name is None:
            return moment / weight[:, None], weight
        (about,) = self.sum(weight)
        share, term = weight / about, moment / about[:, None]
        one, size = jnp.ones((), jnp.float64), to64(_power_of_two(radius))
        pairs = (_heads(term, size), _heads(share, one))
        (term_head, term_tail), (share_head, share_tail) = jax.lax.psum(pairs, self.axis_name)
        whole = to64(share_head) + to64(share_tail)
        return (to64(term_head) + to64(term_tail)) / whole[:, None], about * whole


ONE_DEVICE = Shards()
"""One device that has all the samples."""


def _pair(x: Float[Array, "*shape"]) -> tuple[Array, Array]:
    """Float64 as a float32 and the float32 of the remainder; the remainder of an infinity is 0."""
    head = to32(x)
    return head, jnp.where(jnp.isfinite(head), to32(x - to64(head)), 0)


def _heads(x: Float[Array, "*shape"], size: Float[Array, ""]) -> Float[Array, "2 *shape"]:
    """Float64 as float32 multiples of size / 2²⁰ and float32 remainders."""
    quantum = size * 2.0**-QUANTUM_BITS
    head = jnp.round(x / quantum) * quantum
    return jnp.stack([to32(head), to32(x - head)])


def _power_of_two(x: Float[Array, ""]) -> Float[Array, ""]:
    """The power of two in (x / 2, x], exactly: a float32 without its mantissa. Not below 1e-30."""
    bits = jax.lax.bitcast_convert_type(jnp.maximum(to32(x), 1e-30), jnp.int32)
    return jax.lax.bitcast_convert_type(bits & 0x7F800000, jnp.float32)
