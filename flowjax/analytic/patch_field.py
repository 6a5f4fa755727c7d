"""`patch`: each pixel from the posterior over patches of the training images, at its own place or at every place."""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from flowjax.analytic.analytic_field import HostField, HostQueries, labelled_rows
from flowjax.analytic.patch_field_mesh import MeshPatchField
from flowjax.analytic.patch_size import PatchSize, Size
from flowjax.oracle.arguments import sharded_given, source_given
from flowjax.oracle.backends import all_seen
from flowjax.path import Path
from flowjax.runtime.processes import check_same, gather, gather_array, several, together
from kernels.patches.api import PatchSettings, in_places, patch_sums
from kernels.patches.images import Images, PatchSet, PatchSource
from kernels.patches.on_devices import PatchProgram
from kernels.patches.sums import PatchSums
from kernels.posterior.cpu.threads import cores
from kernels.posterior.distributed.sharded import Sharded

BORDERS = ("padding", "position")


class Patches(NamedTuple):
    """Which patches a field compares; as the arguments of `patch`."""

    size: Size
    anywhere: bool
    borders: str
    shared: bool

    def check(self) -> None:
        """Raise a ValueError for borders that there are not."""
        if self.borders not in BORDERS:
            raise ValueError(f"borders = {self.borders!r}: expected one of {', '.join(BORDERS)}")


class PatchField(HostField):
    """A patch field. Made by `patch` or `patch_from_source`."""

    def __init__(self, images: Images, shape: tuple[int, ...], classes: Iterable[int], path: Path | None, how: Patches):
        super().__init__(shape, classes, path)
        self._images, self._how, self._size = images, how, PatchSize(how.size, image_shape(shape))

    def size(self, t: float) -> int:
        """The side of a patch at t, in pixels, no larger than what sees the whole image from everywhere."""
        return self._size.at(t)

    def _asked(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None, which: int) -> Float[Array, "B *shape"]:
        if self._how.shared and several() and not all_seen(*(part for part in (x_t, t, label) if part is not None)):
            raise NotImplementedError("a patch field whose images several processes share runs outside of jit, vmap and grad")
        return super()._asked(x_t, t, label, which)

    def _predict(self, queries: HostQueries) -> Float[np.ndarray, "B *shape"]:
        height, width, channels = self._images.shape
        x = queries.x.reshape(-1, height, width, channels)
        sizes = self._size.all_at(queries.t)
        sums = PatchSums.none(len(x), channels, height * width)

        def add() -> None:
            for size in np.unique(sizes):
                (rows,) = np.nonzero(sizes == size)
                settings = PatchSettings(int(size), self._how.anywhere, self._how.borders == "position")
                of = (queries.alpha[rows], queries.sigma[rows], queries.label[rows])
                sums.put(rows, patch_sums(self._images, x[rows], *of, settings))

        if self._how.shared:
            together(add)
            sums = _of_all_processes(sums)
        else:
            add()
        return in_places(sums, self._images.shape).reshape(queries.x.shape)


def _of_all_processes(sums: PatchSums) -> PatchSums:
    """The sums of every process, merged: bytes as of the queries, however many images there are."""
    flat = np.concatenate([part.ravel() for part in sums])
    each = [np.split(part, np.cumsum([part.size for part in sums])[:-1]) for part in gather_array(flat)]
    return functools.reduce(
        PatchSums.merge, [PatchSums(*(one.reshape(part.shape) for one, part in zip(parts, sums, strict=True))) for parts in each]
    )


def patch(
    data: ArrayLike | Sharded,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    size: Size,
    anywhere: bool = False,
    borders: str = "position",
    shared: bool = False,
    mesh: Mesh | None = None,
) -> PatchField | MeshPatchField:
    """A local score machine: the prediction of each pixel is the posterior mean over patches of the training images, of their centres.

    With P_u x the patch of p x p pixels (all channels) around place u,

        E[x_1(u) | x_t] = Σ γ y_i(v),  γ = softmax(-‖P_u x - α P_v y_i‖² / 2σ²)

    over all training images i, and over v = u (`anywhere=False`, local: a patch is compared with those at its own place), or over every
    place v too (`anywhere=True`, local and equivariant: the best that a convolutional network with a receptive field of p pixels can do).
    Exact: every patch of every image is weighed. A patch that sees the whole image from everywhere, size >= 2 max(H, W) - 1, gives the
    oracle, but for `anywhere=True` with padding.

    The host computes it; with a mesh, its devices do.

    Args:
      data: `[N, H, W]` or `[N, H, W, C]`, real; or `[N, D]`, a line of D numbers. Or the result of `shard_samples`.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; None: rectified flow.
      size: p, odd; a function of t that returns it; or a table {t: p}: p of the largest t in it that is not above the query's, and of the
        smallest before that.
      anywhere: compare with patches around every place.
      borders: what a patch holds beyond the image's border. "position": nothing; it is clipped, and is compared with patches that are
        clipped alike, so that it knows how far the border is. "padding": zeros, in x and in y, as convolutional networks see it; it is
        compared with patches of all places. With `anywhere=False` the two are the same.
      shared: each process of a job gives images of its own, and calls are made by all alike, outside of jit; the answer is that of all
        images, the same on every process.
      mesh: of devices, as of `Oracle`: the images are distributed over its axis "samples", the queries over "queries". Scores are then
        summed in float32; predictions are within 1e-5 of the definition.

    Raises:
      ValueError: data or labels that do not fit; a size that is not odd, or below 1; unknown borders; both `shared` and a mesh; at t = 1.

    References:
      Kamb and Ganguli 2024, An analytic theory of creativity in convolutional diffusion models, arXiv 2412.20292 (LS and ELS machines);
      Niedoba et al. 2024, Towards a mechanistic explanation of diffusion model generalization, arXiv 2411.19339.
    """
    how = Patches(size, anywhere, borders, shared)
    if mesh is not None or isinstance(data, Sharded):
        return _over_devices(data, labels, path, how, mesh)

    def made() -> PatchField:
        how.check()
        samples = labelled_rows(data, labels)
        images = PatchSet.of(samples.rows, image_shape(samples.shape), samples.classes)
        return PatchField(images, samples.shape, samples.classes, path, how)

    return _made(made, how)


def patch_from_source(
    source: Any,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    size: Size,
    anywhere: bool = False,
    borders: str = "position",
    budget: int = 2**30,
    shared: bool = False,
) -> PatchField:
    """`patch` of images that stay on disk: the same predictions.

        field = patch_from_source("images/", size=9)    # a folder, a .npy, a prepared TFDS data set, ...
        field = patch_from_source(np.load("images.npy", mmap_mode="r"), labels, size=9)

    Making it reads the images once. A call reads them, in double-buffered chunks, once for each class asked for (the rows of that class
    alone) and size of patches, and once more where scores of some queries need float64 and those of others do not.

    Args:
      source, labels: as of `Oracle.from_source`.
      path, size, anywhere, borders, shared: as of `patch`.
      budget: bytes that the field and a call to it may hold beside x_t and the result; 12 an image are for labels and order.

    Raises:
      ValueError: as `patch`; NaN in the data, a budget that is too small, a file cut short, nothing that can be read so.
      FileNotFoundError: nothing lies at the path.
    """
    how = Patches(size, anywhere, borders, shared)

    def made() -> PatchField:
        how.check()
        given = source_given(source, labels)
        images = PatchSource.of(given.rows, image_shape(given.shape), given.labels, budget=budget, cores=cores())
        classes = {-1} if given.labels is None else {-1, *(int(label) for label in np.unique(given.labels))}
        return PatchField(images, given.shape, classes, path, how)

    return _made(made, how)


def _made(made: Callable[[], PatchField], how: Patches) -> PatchField:
    """A field; if processes share the images, with the classes of all of them."""
    if not how.shared:
        return made()
    field = together(made)
    check_same({"patch": {"shape": field.shape, "anywhere": how.anywhere, "borders": how.borders, "path": repr(field.path)}})
    field.classes = sorted({label for text in gather(json.dumps(field.classes)) for label in json.loads(text)})
    return field


def _over_devices(
    data: ArrayLike | Sharded, labels: ArrayLike | None, path: Path | None, how: Patches, mesh: Mesh | None
) -> MeshPatchField:
    how.check()
    if how.shared:
        raise ValueError("shared=True and images over a mesh: the devices of a mesh may belong to several processes; leave `shared` out")
    images = sharded_given(data, labels, None, mesh)
    shape = image_shape(images.shape)
    size = PatchSize(how.size, shape)
    return MeshPatchField(images, size, path, PatchProgram(shape, size.largest(), how.anywhere, how.borders == "position"))


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """H, W and C of samples of this shape."""
    if len(shape) == 1:
        return 1, shape[0], 1
    if len(shape) in (2, 3):
        return shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    raise ValueError(f"data has samples of shape {shape}: expected images [N, H, W] or [N, H, W, C]")
