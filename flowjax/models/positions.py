"""Embeddings of positions and of time: fixed sin-cos vectors, and rotations of queries and keys."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

THETA = 10000.0


def sincos_positions(width: int, grid: tuple[int, int]) -> Float[np.ndarray, "1 T width"]:
    """Sin-cos vectors of a grid of tokens, row by row: the first half tells the column, the second the row, sines before cosines.

    Source: DiT (Peebles and Xie 2023), after MAE; float64 inside, float32 out.
    """
    row, column = np.meshgrid(np.arange(grid[0], dtype=np.float64), np.arange(grid[1], dtype=np.float64), indexing="ij")
    frequencies = THETA ** -(np.arange(width // 4) / (width / 4))
    halves = []
    for place in (column, row):
        angle = place.reshape(-1, 1) * frequencies
        halves += [np.sin(angle), np.cos(angle)]
    return np.concatenate(halves, axis=1)[None].astype(np.float32)


def rotary_tables(head_dim: int, grid: tuple[int, int]) -> tuple[Float[np.ndarray, "T head_dim"], Float[np.ndarray, "T head_dim"]]:
    """Cosines and sines of the angles by which pairs of numbers turn: the first half of a head by the row, the second by the column.

    Each frequency stands twice, once for each number of its pair (2i, 2i + 1).

    Source: RoPE (Su et al. 2021), in two dimensions as in EVA-02 (Fang et al. 2023).
    """
    half = head_dim // 2
    frequencies = THETA ** -(np.arange(0, half, 2, dtype=np.float32) / half)
    row, column = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    angles = np.concatenate([np.repeat(place.reshape(-1, 1) * frequencies, 2, axis=1) for place in (row, column)], axis=1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def halves_of_pairs(rows: Float[Array, "D *inputs"], head_dim: int) -> Float[Array, "D *inputs"]:
    """Rows 2i and 2i + 1 of each head at i and i + head_dim / 2: pairs become halves."""
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rotate(x: Float[Array, "*B T d"], cos: Float[Array, "T half"], sin: Float[Array, "T half"]) -> Float[Array, "*B T d"]:
    """Turn each pair (x_i, x_i+d/2) by its token's angle; float32 inside, x's dtype out."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def time_features(t: Float[Array, " B"], count: int = 256) -> Float[Array, "B count"]:
    """Cosines, then sines, of t itself (in [0, 1], not scaled) at `count / 2` frequencies from 1 down to 1/10000."""
    half = count // 2
    angle = t[:, None] * jnp.exp(-np.log(THETA) * jnp.arange(half, dtype=jnp.float32) / half)
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
