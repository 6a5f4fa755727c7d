"""The tasks there are: a velocity field, and a classifier."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.pipeline import Batch
from flowjax.models.classifier import Classifier
from flowjax.models.lightningdit import Gather, LightningDiT, Remat
from flowjax.models.sizes import Architecture
from flowjax.objective import Examples, Objective
from flowjax.training.task import Metrics


@dataclasses.dataclass(frozen=True)
class FlowTask:
    """A LightningDiT on an objective. `constants`: the Oracle of the data set for target "oracle", None otherwise."""

    shape: Architecture
    objective: Objective
    normalization: Normalization = IDENTITY
    dtype: str = "float32"
    remat: Remat = "none"
    scan: bool | None = None
    stacked: str | None = "blocks"

    def build(self, rngs: nnx.Rngs) -> LightningDiT:
        return LightningDiT(self.shape, rngs=rngs, dtype=jnp.dtype(self.dtype), remat=self.remat, scan=self.scan)

    def prepare(self, batch: Batch, key: Array, constants: Any) -> Examples:
        x_1 = self.normalization(batch.data)
        label = None if batch.label is None else jnp.asarray(batch.label)
        return self.objective.prepare(x_1, label, key, null_label=self.shape.num_classes, oracle=constants)

    def loss(self, model: LightningDiT, examples: Examples, constants: Any, gather: Gather | None) -> tuple[Float[Array, ""], Metrics]:
        losses = self.objective.losses(lambda x, t, label: model(x, t, label, gather=gather), examples)
        return losses.loss.mean(), {"squared_error": losses.squared.mean()}


class Labelled(NamedTuple):
    """Samples with their classes; a pytree."""

    x: Float[Array, "B H W C"]
    label: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class ClassifierTask:
    """A `Classifier` on the cross-entropy of labels. No `constants`."""

    image_shape: tuple[int, int, int]
    num_classes: int
    normalization: Normalization = IDENTITY
    width: int = 32
    stacked: str | None = None

    def build(self, rngs: nnx.Rngs) -> Classifier:
        return Classifier(self.image_shape, self.num_classes, width=self.width, rngs=rngs)

    def prepare(self, batch: Batch, key: Array, constants: Any) -> Labelled:
        if batch.label is None:
            raise ValueError("a classifier needs data with labels")
        return Labelled(self.normalization(batch.data), jnp.asarray(batch.label))

    def loss(self, model: Classifier, examples: Labelled, constants: Any, gather: Gather | None) -> tuple[Float[Array, ""], Metrics]:
        logits = model(examples.x)
        right = (logits.argmax(axis=-1) == examples.label).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, examples.label)
        return loss.mean(), {"accuracy": jax.lax.stop_gradient(right).mean()}
