"""The definition of `patch_means`, by loops, in float64."""

import itertools

import numpy as np
from jaxtyping import Float


def patch_means_ref(
    images: Float[np.ndarray, "N H W C"],
    x: Float[np.ndarray, "H W C"],
    alpha: float,
    sigma: float,
    *,
    size: int,
    anywhere: bool,
    position: bool,
) -> Float[np.ndarray, "H W C"]:
    """For each place u: Σ γ y_i(v), γ = softmax(-‖P_u x - α P_v y_i‖² / 2σ²) over images i and places v.

    `P_u` is the patch of `size` x `size` around u, zeros beyond the border. v is u, or with `anywhere` each place; with `position` only
    places whose patches are clipped by the borders as u's is.
    """
    half, (height, width) = size // 2, x.shape[:2]
    pad = ((half, half), (half, half), (0, 0))
    noisy, clean = np.pad(x.astype(np.float64), pad), np.pad(images.astype(np.float64), ((0, 0), *pad))
    places = list(itertools.product(range(height), range(width)))

    def clip(u: tuple[int, int]) -> tuple[int, ...]:
        return min(u[0], half), min(u[1], half), min(height - 1 - u[0], half), min(width - 1 - u[1], half)

    found = np.empty(x.shape)
    for u in places:
        own = noisy[u[0] : u[0] + size, u[1] : u[1] + size]
        others = [v for v in places if (v == u or anywhere) and (not position or clip(v) == clip(u))]
        patches = np.stack([clean[:, v[0] : v[0] + size, v[1] : v[1] + size] for v in others])
        scores = -np.sum((own - alpha * patches) ** 2, axis=(2, 3, 4)) / (2 * sigma**2)
        weights = np.exp(scores - scores.max())
        centres = np.stack([images[:, v[0], v[1]].astype(np.float64) for v in others])
        found[u] = np.einsum("vn,vnc->c", weights / weights.sum(), centres)
    return found
