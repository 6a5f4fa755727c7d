"""Training tasks: a model and its loss. The loop, the step and the checkpoints are the same for every task."""

from typing import Any, Protocol

from flax import nnx
from jaxtyping import Array, Float

from flowjax.data.pipeline import Batch
from flowjax.models.lightningdit import Gather

Metrics = dict[str, Float[Array, ""]]


class Task(Protocol):
    """A model and its loss. Its attributes are static; arrays that a loss needs (an oracle) are the step's `constants`."""

    @property
    def stacked(self) -> str | None:
        """The part of the model whose parameters have a leading axis of layers, and which gathers them itself, layer by layer."""

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """The model, with its first parameters."""

    def prepare(self, batch: Batch, key: Array, constants: Any) -> Any:
        """What the loss needs of a batch: a pytree whose leaves all have a leading axis of B. Everything random is drawn here."""

    def loss(self, model: Any, examples: Any, constants: Any, gather: Gather | None) -> tuple[Float[Array, ""], Metrics]:
        """The mean loss of some examples, and other means to report."""
