"""The patch field of images that are distributed over the devices of a mesh: one compiled program on all of them."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from flowjax.analytic.analytic_field import checked_path, checked_query
from flowjax.analytic.patch_size import PatchSize
from flowjax.oracle.backends import all_seen
from flowjax.oracle.compiled import folding, velocity_center
from flowjax.path import Path
from flowjax.runtime.processes import gather
from kernels.float64 import float64_scope, to32, to64
from kernels.patches.on_devices import PatchProgram, PatchQueries, patch_means_on_devices
from kernels.posterior.distributed.sharded import Sharded
from kernels.posterior.partial import NO_SAMPLE


@dataclasses.dataclass(frozen=True)
class _Spec:
    """What is static of a call."""

    path: Path
    program: PatchProgram


@jax.tree_util.register_pytree_node_class
class MeshPatchField:
    """A patch field over a mesh. Made by `patch(..., mesh=mesh)`.

    A pytree: pass it to compiled programs as an argument. Under `vmap` the queries become one batch. It has no derivatives. At t = 1 it
    has no posterior; a compiled program gives NaN there.
    """

    def __init__(self, images: Sharded, size: PatchSize, path: Path | None, program: PatchProgram, classes: list[int] | None = None):
        self.path, self.shape = checked_path(path), images.shape
        self._images, self._size, self._program = images, size, program
        self.classes = _classes(images) if classes is None else classes
        """The labels that may be given; -1 is one of them."""

    def size(self, t: float) -> int:
        """The side of a patch at t, in pixels, no larger than what sees the whole image from everywhere."""
        return self._size.at(t)

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The velocity `A_t (E[x_1 | x_t] - κ_t x)`, float32, over the devices of the mesh.

        Args:
          x_t: `[B, *shape]`; several processes bring the same.
          t: scalar or `[B]`, in [0, 1).
          label: None, a scalar or `[B]`: the class to condition on; -1: all images.

        Raises:
          ValueError: shapes that do not fit, t outside [0, 1), a label without images. Under tracing such a row gives NaN.
          NotImplementedError: under tracing, where the size of patches is a function.
        """
        return self._asked(x_t, t, label)[0]

    def denoised(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The prediction of the data, float32. Arguments and errors as of a call."""
        return self._asked(x_t, t, label)[1]

    def _asked(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None) -> tuple[Array, Array]:
        x, time, asked = checked_query(x_t, t, label, self.shape, self.classes)
        if all_seen(time) and bool((time == 1).any()):
            raise ValueError("t = 1: the field has no posterior there; no solver evaluates it, give a t below 1")
        size = jnp.asarray(self._size.all_at(np.asarray(time))) if all_seen(time) else self._size.traced(time)
        if not len(x):
            return x, x
        rows = [self._images.place(part) for part in (x, time, asked, size)]
        velocity, denoised = _compiled(_Spec(self.path, self._program))(self._images, *rows)
        return velocity, denoised

    def tree_flatten(self) -> tuple[tuple[Sharded], tuple[Any, ...]]:
        return (self._images,), (self._size, self.path, self._program, tuple(self.classes))

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Sharded]) -> "MeshPatchField":
        size, path, program, classes = static
        return cls(*children, size, path, program, list(classes))


@functools.cache
def _compiled(spec: _Spec) -> Callable[..., tuple[Array, Array]]:
    return jax.jit(folding(functools.partial(_both, spec)))


def _both(spec: _Spec, images: Sharded, x: Array, t: Array, label: Array, size: Array) -> tuple[Array, Array]:
    """Velocity and prediction; NaN for t outside [0, 1) and x that are not finite."""
    sound = (t >= 0) & (t < 1) & jnp.isfinite(x.reshape(len(x), math.prod(images.shape))).all(axis=1)
    with float64_scope():
        time = to64(jnp.where(sound, t, 0.5))
        path = spec.path
        alpha, sigma, center, rate = (to32(f) for f in (path.alpha(time), path.sigma(time), velocity_center(path, time), path.A(time)))
    noisy = jnp.where(sound[:, None, None, None], x.reshape(len(x), *spec.program.shape), 0)
    found = patch_means_on_devices(PatchQueries(noisy, alpha, sigma, label, size), images, spec.program)
    across = (slice(None), *(None for _ in images.shape))
    denoised = jnp.where(sound[across], found.reshape(x.shape), jnp.nan)
    return rate[across] * (denoised - center[across] * x), denoised


def _classes(images: Sharded) -> list[int]:
    """-1 and the classes that some device has images of."""
    labels = images.samples.labels
    if labels is None:
        return [-1]
    here = {int(label) for shard in labels.addressable_shards for label in np.unique(np.asarray(shard.data))} - {NO_SAMPLE}
    return sorted({-1, *(label for text in gather(json.dumps(sorted(here))) for label in json.loads(text))})
