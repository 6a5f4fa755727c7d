"""The autoencoder's task: reconstruct, stay near a unit Gaussian, and, if asked to, agree with the features of a frozen network."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.pipeline import Batch
from flowjax.models.autoencoder import FACTORS, Autoencoder, sizes
from flowjax.models.lightningdit import Gather
from flowjax.training.task import Metrics
from flowjax.training.tasks import ClassifierTask


class Drawn(NamedTuple):
    """Images, and the noise of their latents; a pytree."""

    x: Float[Array, "B H W C"]
    noise: Float[Array, "B h w c"]
    features: Float[Array, "B h w F"] | None
    """Of the frozen network, at the latents' size."""


@dataclasses.dataclass(frozen=True)
class AutoencoderTask:
    """`mean (x̂ - x)² + kl_weight · KL / D + align_weight · alignment`, with latents drawn by reparametrisation.

    Alignment is that of VA-VAE (Yao et al. 2025): latents, mapped linearly, should point as the features do at each place, and pairs of
    places should be as alike as their features are; both up to a margin.

    Attributes:
      align: the task of the frozen network; its parameters are the step's `constants`. None: a plain autoencoder.
    """

    image_shape: tuple[int, int, int]
    channels: int
    factor: int
    width: int = 32
    kl_weight: float = 1e-3
    align: ClassifierTask | None = None
    align_weight: float = 0.1
    margins: tuple[float, float] = (0.5, 0.25)
    normalization: Normalization = IDENTITY
    stacked: str | None = None

    def __post_init__(self) -> None:
        if not (self.kl_weight >= 0 and self.align_weight >= 0):
            raise ValueError(f"kl_weight = {self.kl_weight}, align_weight = {self.align_weight}: expected 0 or more")

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        features = 0 if self.align is None else self.align.width * (1 if self.factor == 1 else 2)
        return Autoencoder(self.image_shape, self.channels, self.factor, width=self.width, features=features, rngs=rngs)

    def prepare(self, batch: Batch, key: Array, constants: Any) -> Drawn:
        x = self.normalization(batch.data)
        height, width, _ = self.image_shape
        noise = jax.random.normal(key, (len(x), *sizes(height, width, self.factor)[-1], self.channels), jnp.float32)
        if self.align is None:
            return Drawn(x, noise, None)
        definition, _ = nnx.split(self.align.build(nnx.Rngs(0)))
        maps = nnx.merge(definition, constants).maps(x)
        return Drawn(x, noise, jax.lax.stop_gradient(_at_size(maps, self.factor)))

    def loss(self, model: Autoencoder, examples: Drawn, constants: Any, gather: Gather | None) -> tuple[Float[Array, ""], Metrics]:
        mean, log_variance = model.moments(examples.x)
        latents = mean + jnp.exp(log_variance / 2) * examples.noise
        squared = jnp.mean((model.decode(latents) - examples.x) ** 2)
        divergence = jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance) / (2 * examples.x.size)
        metrics = {"squared_error": squared, "kl": divergence}
        loss = squared + self.kl_weight * divergence
        if examples.features is not None and model.alignment is not None:
            metrics["alignment"] = _misalignment(model.alignment(latents), examples.features, self.margins)
            loss += self.align_weight * metrics["alignment"]
        return loss, metrics


def _at_size(maps: list[Float[Array, "B _ _ _"]], factor: int) -> Float[Array, "B h w F"]:
    """The map of the latents' size; beyond the last, which is a quarter of the image, its means over pairs."""
    if factor <= 4:
        return maps[FACTORS.index(factor)]
    return nnx.avg_pool(maps[-1], (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False)


def _misalignment(a: Float[Array, "B h w F"], b: Float[Array, "B h w F"], margins: tuple[float, float]) -> Float[Array, ""]:
    """How far directions differ beyond the first margin, and likenesses of pairs of places beyond the second."""
    a, b = (_directions(v).reshape(len(v), -1, v.shape[-1]) for v in (a, b))
    pointwise = jax.nn.relu(1 - margins[0] - jnp.sum(a * b, axis=-1)).mean()
    pairs = jnp.abs(jnp.einsum("bif,bjf->bij", a, a) - jnp.einsum("bif,bjf->bij", b, b))
    return pointwise + jax.nn.relu(pairs - margins[1]).mean()


def _directions(v: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    return v * jax.lax.rsqrt(jnp.sum(v * v, axis=-1, keepdims=True) + 1e-8)
