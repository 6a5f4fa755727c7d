"""`patch`: each pixel from the posterior over patches of the training images, at its own place or at every place."""

from collections.abc import Callable, Mapping

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from flowjax.analytic.analytic_field import HostField, HostQueries, LabelledRows, labelled_rows
from flowjax.path import Path
from kernels.patches.api import PatchSet, PatchSettings, patch_means

Size = int | Callable[[float], int] | Mapping[float, int]
BORDERS = ("padding", "position")


class PatchField(HostField):
    """A patch field. Made by `patch`."""

    def __init__(self, samples: LabelledRows, path: Path | None, size: Callable[[float], int], anywhere: bool, borders: str):
        super().__init__(samples, path)
        self._size, self._anywhere, self._borders = size, anywhere, borders
        self._patches = PatchSet.of(samples.rows, image_shape(samples.shape), samples.classes)

    def size(self, t: float) -> int:
        """The side of a patch at t, in pixels, no larger than what sees the whole image from everywhere."""
        p, most = self._size(float(t)), 2 * max(image_shape(self.shape)[:2]) - 1
        if isinstance(p, bool) or p != int(p) or p < 1 or int(p) % 2 == 0:
            raise ValueError(f"size at t = {t:.4g} is {p!r}: expected an odd number of pixels, so that a patch has a centre")
        return min(int(p), most)

    def _predict(self, queries: HostQueries) -> Float[np.ndarray, "B *shape"]:
        x = queries.x.reshape(len(queries.x), *image_shape(self.shape))
        found = np.empty(x.shape)
        for time in np.unique(queries.t):
            (rows,) = np.nonzero(queries.t == time)
            settings = PatchSettings(self.size(float(time)), self._anywhere, self._borders == "position")
            of = (queries.alpha[rows], queries.sigma[rows], queries.label[rows])
            found[rows] = patch_means(self._patches, x[rows], *of, settings)
        return found.reshape(queries.x.shape)


def patch(
    data: ArrayLike,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    size: Size,
    anywhere: bool = False,
    borders: str = "position",
) -> PatchField:
    """A local score machine: the prediction of each pixel is the posterior mean over patches of the training images, of their centres.

    With P_u x the patch of p x p pixels (all channels) around place u,

        E[x_1(u) | x_t] = Σ γ y_i(v),  γ = softmax(-‖P_u x - α P_v y_i‖² / 2σ²)

    over all training images i, and over v = u (`anywhere=False`, local: a patch is compared with those at its own place), or over every
    place v too (`anywhere=True`, local and equivariant: the best that a convolutional network with a receptive field of p pixels can do).
    Exact: every patch of every image is weighed. A patch that sees the whole image from everywhere, size >= 2 max(H, W) - 1, gives the
    oracle, but for `anywhere=True` with padding.

    Args:
      data: `[N, H, W]` or `[N, H, W, C]`, real; or `[N, D]`, a line of D numbers.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; None: rectified flow.
      size: p, odd; a function of t that returns it; or a table {t: p}: p of the largest t in it that is not above the query's, and of the
        smallest before that.
      anywhere: compare with patches around every place.
      borders: what a patch holds beyond the image's border. "position": nothing; it is clipped, and is compared with patches that are
        clipped alike, so that it knows how far the border is. "padding": zeros, in x and in y, as convolutional networks see it; it is
        compared with patches of all places. With `anywhere=False` the two are the same.

    Raises:
      ValueError: data or labels that do not fit; a size that is not odd, or below 1; unknown borders; at t = 1.

    References:
      Kamb and Ganguli 2024, An analytic theory of creativity in convolutional diffusion models, arXiv 2412.20292 (LS and ELS machines);
      Niedoba et al. 2024, Towards a mechanistic explanation of diffusion model generalization, arXiv 2411.19339.
    """
    samples = labelled_rows(data, labels)
    if borders not in BORDERS:
        raise ValueError(f"borders = {borders!r}: expected one of {', '.join(BORDERS)}")
    image_shape(samples.shape)
    field = PatchField(samples, path, _function_of_t(size), anywhere, borders)
    if isinstance(size, int):
        field.size(0.0)
    return field


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """H, W and C of samples of this shape."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) in (2, 3):
        return shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    raise ValueError(f"data has samples of shape {shape}: expected images [N, H, W] or [N, H, W, C]")


def _function_of_t(size: Size) -> Callable[[float], int]:
    if callable(size):
        return size
    if not isinstance(size, Mapping):
        return lambda t: size
    if not size:
        raise ValueError("size = {}: expected a table {t: p} with at least one row")
    times = sorted(size)
    return lambda t: size[times[max(0, int(np.searchsorted(times, t, side="right")) - 1)]]
