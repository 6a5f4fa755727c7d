"""Encoders between images and latents: the protocol, and a linear autoencoder that can be fitted to any data set."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from safetensors.numpy import save_file

from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.records import Records
from flowjax.runtime.storage import write_whole


@runtime_checkable
class Encoder(Protocol):
    """An autoencoder, as `experiments.encode_latents` uses it. One of your own has these four members, and a function that makes it.

    `settings` names it in plain JSON values: two encoders with equal settings give equal latents, and an interrupted encoding is resumed
    only with equal settings. Put a checksum of the weights there.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain JSON values that identify the encoder."""

    def encode(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        """Latents of images in the model's values ([-1, 1] for 8-bit images), float32; jitted by the caller."""

    def decode(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """The images of un-normalised latents; jitted by the caller."""

    def save(self, folder: pathlib.Path) -> None:
        """Writes the files that `decode` needs, if any, beside the latents."""


class PatchPca:
    """A linear autoencoder of patches: each `patch` x `patch` square is described by its first `channels` principal components.

    Of all linear maps of a patch to so many numbers it loses least, in mean square over the images that it was fitted on. Latents are
    `[H / patch, W / patch, channels]`, un-normalised.

    Attributes:
      mean: `[P]` of a patch, P = patch² C, in the order (row, column, channel).
      basis: `[P, channels]`, orthonormal columns, by falling variance.
      explained: `[P]`, the share of the variance that so many components keep.
    """

    FILE = "patch_pca.safetensors"

    def __init__(self, mean: np.ndarray, basis: np.ndarray, explained: np.ndarray, patch: int, channels_in: int):
        self.mean, self.basis, self.explained = mean, basis, explained
        self.patch, self.channels_in = patch, channels_in

    @classmethod
    def fit(cls, records: Records, patch: int, channels: int, max_samples: int = 10_000, seed: int = 0) -> "PatchPca":
        """Fits it to the patches of at most `max_samples` images.

        Raises:
          ValueError: samples that are no images `[H, W, C]`, a patch that does not divide them, more channels than a patch has values.
        """
        if len(records.shape) != 3:
            raise ValueError(f"{records.name}: samples have shape {records.shape}, expected images [H, W, C]")
        height, width, colors = records.shape
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"patch={patch}: expected a divisor of height and width, {height} and {width}")
        size = patch * patch * colors
        if not 1 <= channels <= size:
            raise ValueError(f"channels={channels}: expected 1 to {size}, the values of a {patch} x {patch} patch")
        chosen = records.subset(max_samples=max_samples, seed=seed)
        total, product, count = np.zeros(size), np.zeros((size, size)), 0
        step = max(1, 2**22 // records.d)
        for start in range(0, chosen.n, step):
            values = chosen.normalization(chosen.read(np.arange(start, min(start + step, chosen.n))))
            patches = np.asarray(_to_patches(values, patch), np.float64).reshape(-1, size)
            if not np.isfinite(patches).all():
                raise ValueError(f"{records.name}: NaN or infinity in samples {start} to {start + len(values) - 1}")
            total, product, count = total + patches.sum(0), product + patches.T @ patches, count + len(patches)
        mean = total / count
        eigenvalues, vectors = np.linalg.eigh(product / count - np.outer(mean, mean))
        order = np.argsort(eigenvalues)[::-1]
        vectors = vectors[:, order] * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(size)])[order]  # a sign of its own for each
        falling = np.maximum(eigenvalues[order], 0)
        explained = np.cumsum(falling) / max(falling.sum(), 1e-300)
        return cls(mean.astype(np.float32), vectors[:, :channels].astype(np.float32), explained.astype(np.float32), patch, colors)

    @property
    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.mean.tobytes() + self.basis.tobytes()).hexdigest()
        return {"encoder": "patch_pca", "patch": self.patch, "channels": self.basis.shape[1], "sha256": digest}

    def encode(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        with jax.default_matmul_precision("highest"):
            return (_to_patches(images, self.patch) - self.mean) @ self.basis

    def decode(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        with jax.default_matmul_precision("highest"):
            patches = latents @ self.basis.T + self.mean
        b, h, w, _ = latents.shape
        p, c = self.patch, self.channels_in
        return jnp.transpose(patches.reshape(b, h, w, p, p, c), (0, 1, 3, 2, 4, 5)).reshape(b, h * p, w * p, c)

    def save(self, folder: pathlib.Path) -> None:
        arrays = {"mean": self.mean, "basis": np.ascontiguousarray(self.basis), "explained": self.explained}
        sizes = {"patch": np.array([self.patch]), "channels_in": np.array([self.channels_in])}
        write_whole(folder / self.FILE, lambda file: save_file(arrays | sizes, file))

    @classmethod
    def load(cls, folder: pathlib.Path) -> "PatchPca":
        """The encoder that `save` wrote to a folder."""
        held = read_safetensors(folder / cls.FILE)
        return cls(held["mean"], held["basis"], held["explained"], int(held["patch"][0]), int(held["channels_in"][0]))


def _to_patches(images: Any, patch: int) -> Any:
    """Images `[B, H, W, C]` as patches `[B, H / patch, W / patch, patch² C]`."""
    b, h, w, c = images.shape
    cut = images.reshape(b, h // patch, patch, w // patch, patch, c)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch * patch * c)
