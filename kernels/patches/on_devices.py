"""The sums of a patch posterior as one compiled program, for images that are distributed over the devices of a mesh."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels.float64 import to32
from kernels.patches.sums import PatchSums
from kernels.posterior.distributed.collectives import ONE_DEVICE, Shards
from kernels.posterior.distributed.sharded import Sharded, spread
from kernels.posterior.types import Samples

BLOCK_BYTES = 2**25
"""Squared differences of one block of images from all queries, float32: they are read twice, and stay in a last-level cache."""
DIFFERENCES_FROM = 0.5
"""α/σ from which scores are summed from (x - αy)², below it from αy(αy - 2x). They differ by x², the same for all patches, and where α is
small the second sum is much the smaller one, and rounds less."""


@dataclasses.dataclass(frozen=True)
class PatchProgram:
    """What is static of the program."""

    shape: tuple[int, int, int]
    """H, W, C of an image."""
    largest: int
    """No patch has a larger side."""
    anywhere: bool
    """With patches around every place; else with those at their own."""
    position: bool
    """Only with patches that the borders clip alike; else patches are padded with zeros."""
    shards: Shards = ONE_DEVICE

    @property
    def margin(self) -> int:
        """Pixels beyond the border that a patch may see, where it is padded and compared with patches of other places."""
        return self.largest // 2 if self.anywhere and not self.position else 0


class PatchQueries(NamedTuple):
    """Noisy images x = α y + σ noise, and the side of the patches for each."""

    x: Float[Array, "B H W C"]
    alpha: Float[Array, " B"]
    sigma: Float[Array, " B"]
    """Above 0."""
    label: Int[Array, " B"]
    """-1: all images."""
    size: Int[Array, " B"]
    """Odd."""


def patch_means_on_devices(queries: PatchQueries, images: Sharded, program: PatchProgram) -> Float[Array, "B H W C"]:
    """`patch_means` of images over a mesh, under jit: each device compares all queries of its part with its own images.

    Scores are sums over a patch of squared differences, taken by two products with matrices of zeros and ones, so that one program serves
    patches of every size. The work of a pair of patches is 4 (H + 2 margin) operations of a matrix unit for each pixel. Devices merge
    their sums in collectives of the queries' size, however many images there are. Float32; NaN for a class without images.
    """
    return spread(_means, (queries,), images, program)


def _means(queries: PatchQueries, samples: Samples, program: PatchProgram) -> Float[Array, "B H W C"]:
    """On one device, of its own images; together with the others by collectives."""
    height, width, channels = program.shape
    unit = jnp.float32(1) if samples.unit is None else to32(samples.unit)
    queries = queries._replace(x=queries.x / unit, sigma=queries.sigma / unit)
    b, margin = len(queries.x), program.margin
    block = max(1, min(samples.n, BLOCK_BYTES // (4 * max(1, b) * (height + 2 * margin) * (width + 2 * margin))))
    padded = jnp.pad(queries.x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    moves = jnp.asarray(_displacements(program))

    def block_sums(sums: PatchSums, start: Array) -> tuple[PatchSums, None]:
        first = jnp.minimum(start, samples.n - block)
        at = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=block)
        y = at(samples.values).astype(jnp.float32).reshape(block, height, width, channels)
        counts = first + jnp.arange(block) >= start  # the last block is moved back to fit
        if samples.log_prior is not None:
            counts &= at(samples.log_prior) > -jnp.inf
        taken = jnp.broadcast_to(counts, (b, block))
        if samples.labels is not None:
            taken &= (queries.label[:, None] == -1) | (queries.label[:, None] == at(samples.labels))
        far = (height - 1 + margin, width - 1 + margin) if program.anywhere else (0, 0)
        wide = jnp.pad(y, ((0, 0), (far[0], far[0]), (far[1], far[1]), (0, 0)))

        def one(sums: PatchSums, move: Array) -> tuple[PatchSums, None]:
            return sums.merge(_of_displacement(queries, padded, wide, taken, move, far, program)), None

        own, _ = jax.lax.scan(one, none, moves)
        return sums.merge(own), None

    none = PatchSums.none(b, channels, height * width, jnp)
    starts = jnp.arange(0, samples.n, block, dtype=jnp.int32)
    sums, _ = jax.lax.scan(block_sums, none, starts)
    means = _over(program.shards, sums).means() * unit
    return means.transpose(0, 2, 1).reshape(b, height, width, channels)


def _of_displacement(
    queries: PatchQueries,
    x: Float[Array, "B R S C"],
    wide: Float[Array, "n T U C"],
    taken: Bool[Array, "B n"],
    move: Int[Array, " 2"],
    far: tuple[int, int],
    program: PatchProgram,
) -> PatchSums:
    """Of the patches around u + `move` in a block of images, for those around each u.

    Args:
      x: padded by the margin.
      wide: images padded by `far` on each side, which holds every displacement and the margin.
    """
    (height, width, channels), margin = program.shape, program.margin
    corner = jnp.stack([jnp.int32(0), move[0] + far[0] - margin, move[1] + far[1] - margin, jnp.int32(0)])
    y = jax.lax.dynamic_slice(wide, corner, (len(wide), *x.shape[1:3], channels))
    alpha, near = queries.alpha[:, None, None, None, None], (queries.alpha >= DIFFERENCES_FROM * queries.sigma)[:, None, None, None, None]
    own, scaled = x[:, None], alpha * y
    terms = jnp.where(near, (own - scaled) ** 2, scaled * (scaled - 2 * own)).sum(axis=-1)
    rows, columns = (_boxes(n, margin, queries.size) for n in (height, width))
    sums = jnp.einsum("bur,bnrs,bvs->bnuv", rows, terms, columns, precision="highest")
    half = math.log2(math.e) / (2 * queries.sigma**2)
    compared = _compared(queries.size, height, move[0], program)[:, :, None] & _compared(queries.size, width, move[1], program)[:, None]
    scores = jnp.where(taken[:, :, None, None] & compared[:, None], -half[:, None, None, None] * sums, -jnp.inf)
    scores = scores.reshape(*taken.shape, height * width)
    peak = scores.max(axis=1)
    weights = jnp.exp2(scores - jnp.where(jnp.isneginf(peak), 0, peak)[:, None])
    centers = y[:, margin : margin + height, margin : margin + width].reshape(len(y), height * width, channels)
    return PatchSums(peak, weights.sum(axis=1), jnp.einsum("bnp,npc->bcp", weights, centers, precision="highest"))


def _boxes(n: int, margin: int, size: Int[Array, " B"]) -> Float[Array, "B n_inside n_padded"]:
    """Which of the padded pixels along a side belong to the patch around each pixel inside: ones and zeros."""
    away = np.abs(np.arange(-margin, n + margin)[None] - np.arange(n)[:, None])
    return (jnp.asarray(away) <= (size // 2)[:, None, None]).astype(jnp.float32)


def _compared(size: Int[Array, " B"], n: int, move: Array, program: PatchProgram) -> Bool[Array, "B n"]:
    """Whether the place `move` further along a side of n pixels is one that each place is compared with."""
    here = jnp.arange(n)
    there = here + move
    inside = (there >= 0) & (there < n)
    if not program.position:
        return jnp.broadcast_to(inside, (len(size), n))
    half = (size // 2)[:, None]
    unclipped = [(at >= half) & (at < n - half) for at in (here, there)]
    return inside & ((move == 0) | (unclipped[0] & unclipped[1]))


def _displacements(program: PatchProgram) -> Int[np.ndarray, "M 2"]:
    """All that some place may be compared at."""
    if not program.anywhere:
        return np.zeros((1, 2), np.int32)
    rows, columns = (np.arange(1 - n, n, dtype=np.int32) for n in program.shape[:2])
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _over(shards: Shards, sums: PatchSums) -> PatchSums:
    """The sums of the images of all devices."""
    if shards.axis_name is None:
        return sums
    peak = shards.max(sums.peak)
    scale = jnp.exp2(sums.peak - jnp.where(jnp.isneginf(peak), 0, peak))
    weight, center = jax.lax.psum((scale * sums.weight, scale[:, None] * sums.center), shards.axis_name)
    return PatchSums(peak, weight, center)
