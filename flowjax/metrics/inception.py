"""Inception features, as FID takes them: from a weight file of the user's, through torch-fidelity (extra `inception`)."""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.formats.torch_file import read_torch
from flowjax.metrics.frechet import Moments
from flowjax.runtime import extras

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the weight file that torch-fidelity publishes, converted from TensorFlow's original."""


class InceptionFeatures:
    """The 2,048 features of the pool that FID is defined on, of images resized as TensorFlow 1 did.

    The weights are read by this project's readers, which run no code of a file, and given to torch-fidelity.

    Args:
      weights: torch-fidelity's file of InceptionV3 (`WEIGHTS`), or the same tensors in `.safetensors`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that cannot be read or that holds no InceptionV3; torch-fidelity is not installed.
    """

    name = "inception"

    def __init__(self, weights: str | os.PathLike):
        path = pathlib.Path(weights).expanduser()
        held: Mapping[Any, Any] = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path, plain=True)
        tensors = {str(name): value for name, value in held.items() if isinstance(value, np.ndarray)}
        if "Conv2d_1a_3x3.conv.weight" not in tensors or "fc.weight" not in tensors:
            raise ValueError(
                f"{path}: is no InceptionV3 of torch-fidelity ({WEIGHTS}): it holds {', '.join(sorted(tensors)[:3]) or 'nothing'}"
            )
        try:
            import torch
            from torch_fidelity import FeatureExtractorInceptionV3
        except ImportError as error:
            raise extras.missing("Inception", error, "inception") from None
        with tempfile.TemporaryDirectory() as folder:  # on Windows a file that is open here could not be opened again
            file = os.path.join(folder, "weights.pth")
            torch.save({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, file)
            try:
                self._network = FeatureExtractorInceptionV3(self.name, ["2048"], file)
            except RuntimeError as error:
                raise ValueError(
                    f"{path}: its tensors are not those of InceptionV3 ({str(error).splitlines()[-1].strip()[:150]})"
                ) from error

    def __call__(self, images: UInt8[np.ndarray, "N H W 3"], batch_size: int = 50) -> Float[np.ndarray, "N F"]:
        """Features, float32 `[N, 2048]`."""
        import torch

        parts = [images[start : start + batch_size].transpose(0, 3, 1, 2) for start in range(0, len(images), batch_size)]
        with torch.no_grad():
            return np.concatenate([self._network(torch.from_numpy(part.copy()))[0].numpy() for part in parts])


def read_moments(path: str | os.PathLike) -> Moments:
    """Reference statistics as evaluation suites publish them: an `.npz` with `mu` `[F]` and `sigma` `[F, F]`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no `.npz`, or without these two.
    """
    found = pathlib.Path(path).expanduser()
    held = read_numpy(found)
    if not {"mu", "sigma"} <= set(held):
        raise ValueError(f"{found}: holds no reference statistics mu and sigma, but {', '.join(sorted(held)[:5]) or 'nothing'}")
    mean, covariance = np.asarray(held["mu"], np.float64), np.asarray(held["sigma"], np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"{found}: mu has shape {mean.shape}, sigma {covariance.shape}: expected [F] and [F, F]")
    return Moments(mean, covariance)
