"""A small convolutional classifier, whose features replace Inception's on small images such as digits and Fashion-MNIST."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Classifier(nnx.Module):
    """Three convolutions, of which the second and third halve the image, and two dense layers.

        logits, features = model(x), model.features(x)          # x [B, H, W, C]

    Args:
      image_shape: (H, W, C).
      num_classes: how many labels.
      width: channels of the first convolution; the features have four times as many.
      rngs: of the initial parameters.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, width: int = 32, rngs: nnx.Rngs):
        channels = (image_shape[2], width, 2 * width, 2 * width)
        self.convolutions = nnx.List(
            [
                nnx.Conv(inputs, outputs, (3, 3), strides=1 if i == 0 else 2, rngs=rngs)
                for i, (inputs, outputs) in enumerate(itertools.pairwise(channels))
            ]
        )
        area = -(-image_shape[0] // 4) * -(-image_shape[1] // 4)
        self.hidden = nnx.Linear(2 * width * area, 4 * width, rngs=rngs)
        self.logits = nnx.Linear(4 * width, num_classes, rngs=rngs)

    def maps(self, x: Float[Array, "B H W C"]) -> list[Float[Array, "B h w width"]]:
        """Output of each convolution, at the image's size, a half and a quarter of it."""
        found = []
        for convolution in self.convolutions:
            x = jax.nn.silu(convolution(x.astype(jnp.float32)))
            found.append(x)
        return found

    def features(self, x: Float[Array, "B H W C"]) -> Float[Array, "B F"]:
        """Input of the last layer, `[B, 4 width]`."""
        return jax.nn.silu(self.hidden(self.maps(x)[-1].reshape(len(x), -1)))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B num_classes"]:
        return self.logits(self.features(x))
