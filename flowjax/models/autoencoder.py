"""A small convolutional autoencoder with a Gaussian bottleneck, plain or aligned with the features of another network."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors.numpy import save_file

from flowjax.data.encoder import PatchPca
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.records import Records
from flowjax.runtime.storage import write_whole

FILE = "autoencoder.safetensors"
FACTORS = (1, 2, 4, 8)


def sizes(height: int, width: int, factor: int) -> tuple[tuple[int, int], ...]:
    """Of images, of each halving of them, rounded up, and last of their latents."""
    return tuple((-(-height // 2**i), -(-width // 2**i)) for i in range(FACTORS.index(factor) + 1))


class Autoencoder(nnx.Module):
    """Images `[B, H, W, C]` to Gaussians over latents `[B, ⌈H / factor⌉, ⌈W / factor⌉, channels]`, and back.

    Args:
      image_shape: (H, W, C).
      channels: of the latents.
      factor: by how much they are smaller: 1, 2, 4 or 8.
      width: channels of the first convolution; each halving doubles them.
      features: width of the feature maps that latents are aligned with, by a linear map of their own; 0: none.
      rngs: of the initial parameters.

    Raises:
      ValueError: a factor that is not one of these.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], channels: int, factor: int, *, width: int = 32, features: int = 0, rngs: nnx.Rngs
    ):
        height, wide, colors = image_shape
        if factor not in FACTORS:
            raise ValueError(f"factor = {factor}: expected one of {FACTORS}")
        if channels < 1 or width < 1:
            raise ValueError(f"channels = {channels}, width = {width}: expected at least 1")
        self.image_shape = image_shape
        self.made_of = {"image_shape": list(image_shape), "channels": channels, "factor": factor, "width": width, "features": features}
        self.sizes = sizes(height, wide, factor)
        widths = [width * 2**i for i in range(len(self.sizes))]
        self.down = nnx.List([nnx.Conv(colors, width, (3, 3), rngs=rngs)])
        self.up: nnx.List = nnx.List([])
        for a, b in itertools.pairwise(widths):
            self.down.append(nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs))
            self.up.insert(0, nnx.Conv(b, a, (3, 3), rngs=rngs))
        self.to_moments = nnx.Conv(widths[-1], 2 * channels, (3, 3), rngs=rngs)
        self.from_latents = nnx.Conv(channels, widths[-1], (3, 3), rngs=rngs)
        self.to_image = nnx.Conv(width, colors, (3, 3), rngs=rngs)
        self.alignment = nnx.Linear(channels, features, use_bias=False, rngs=rngs) if features else None

    def moments(self, x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B h w c"], Float[Array, "B h w c"]]:
        """Mean and log-variance of the latents."""
        x = x.astype(jnp.float32)
        for convolution in self.down:
            x = jax.nn.silu(convolution(x))
        mean, log_variance = jnp.split(self.to_moments(x), 2, axis=-1)
        return mean, jnp.clip(log_variance, -30, 20)

    def decode(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Images of latents."""
        x = jax.nn.silu(self.from_latents(latents.astype(jnp.float32)))
        for convolution, (height, width) in zip(self.up, self.sizes[-2::-1], strict=True):
            x = jax.nn.silu(convolution(x.repeat(2, axis=1)[:, :height].repeat(2, axis=2)[:, :, :width]))
        return self.to_image(x)


class TrainedEncoder:
    """A trained autoencoder as `experiments.encode_latents` takes it: the latents are the means.

    python -m experiments.encode_latents --config.encoder.factory=flowjax.models.autoencoder:load_encoder \\
        --config.encoder.settings='{"folder": "runs/autoencoder"}'
    """

    def __init__(self, model: Autoencoder):
        self._model = model

    @property
    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(b"".join(value.tobytes() for _, value in sorted(_tensors(self._model).items()))).hexdigest()
        return {"encoder": "autoencoder", **self._model.made_of, "sha256": digest}

    def encode(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        return self._model.moments(images)[0]

    def decode(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        return self._model.decode(latents)

    def save(self, folder: pathlib.Path) -> None:
        save_autoencoder(self._model, folder / FILE)


def save_autoencoder(model: Autoencoder, path: pathlib.Path) -> None:
    """Its parameters by name, and what it is made of, in one `.safetensors` file."""
    write_whole(
        path, lambda file: save_file(_tensors(model) | {"made_of": np.frombuffer(json.dumps(model.made_of).encode(), np.uint8)}, file)
    )


def load_autoencoder(path: pathlib.Path) -> Autoencoder:
    """The autoencoder of a file that `save_autoencoder` wrote.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a file that is not one.
    """
    held = dict(read_safetensors(path))
    if "made_of" not in held:
        raise ValueError(f"{path}: is no autoencoder of experiments.train")
    try:
        made_of = json.loads(held.pop("made_of").tobytes())
        height, width, colors = (int(side) for side in made_of.pop("image_shape"))
        model = Autoencoder((height, width, colors), **{key: int(value) for key, value in made_of.items()}, rngs=nnx.Rngs(0))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: what it is made of cannot be read ({error})") from error
    for name, variable in _variables(model).items():
        if name not in held or held[name].shape != variable.shape:
            raise ValueError(f"{path}: lacks {name} of shape {variable.shape}")
        variable.set_value(jnp.asarray(held[name]))
    return model


def load_encoder(records: Records, folder: str) -> TrainedEncoder:
    """The encoder that a run of `experiments.train` left in its folder.

    Raises:
      FileNotFoundError, ValueError: as `load_autoencoder`; an encoder of images of another shape.
    """
    path = pathlib.Path(folder).expanduser() / FILE
    model = load_autoencoder(path)
    if model.image_shape != tuple(records.shape):
        raise ValueError(f"{path}: encodes images of shape {model.image_shape}, {records.name} has {records.shape}")
    return TrainedEncoder(model)


def load_decoder(folder: str | os.PathLike) -> Callable[[Float[Array, "B h w c"]], Float[Array, "B H W C"]]:
    """What turns un-normalised latents into images: of a folder that `experiments.encode_latents` wrote, or `experiments.train`.

    Raises:
      FileNotFoundError: a folder with no decoder of ours.
      ValueError: a file that is not one.
    """
    found = pathlib.Path(folder).expanduser()
    if (found / PatchPca.FILE).is_file():
        return PatchPca.load(found).decode
    if (found / FILE).is_file():
        return load_autoencoder(found / FILE).decode
    raise FileNotFoundError(f"decoder: {found} holds neither {PatchPca.FILE} nor {FILE}: give a folder of encode_latents, or of train")


def _variables(model: Autoencoder) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def _tensors(model: Autoencoder) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable[...]) for name, variable in _variables(model).items()}
