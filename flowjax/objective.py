"""The training objective of a velocity field: regression on the CFM target, the oracle, or the oracle of a mini-batch."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowjax.oracle import Oracle
from flowjax.path import Path, RectifiedFlow
from flowjax.schedules import TimeDistribution

TARGETS = ("cfm", "oracle", "minibatch")

Field = Callable[[Array, Array, Array | None], Array]
"""`field(x [B, *shape], t [B], label None or [B]) -> velocity`."""


class Examples(NamedTuple):
    """A batch to regress on; a pytree."""

    x_t: Float[Array, "B *shape"]
    t: Float[Array, " B"]
    label: Int[Array, " B"] | None
    target: Float[Array, "B *shape"]
    """The velocity that the field should have at x_t."""


class Losses(NamedTuple):
    """Losses of a batch, example by example; float32."""

    loss: Float[Array, " B"]
    """The loss that is minimised: `squared`, and the cosine term if there is one."""
    squared: Float[Array, " B"]
    """Mean over the values of a sample of (v - target)²."""
    t: Float[Array, " B"]
    """The times that were drawn."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """The regression `E ‖v(x_t, t) - target‖² / D` over x_t = α x_1 + σ x_0. Static under `jax.jit`.

    All three targets have the same mean given x_t, the marginal velocity, hence the same minimiser; they differ in variance:

    - "cfm": α' x_1 + σ' x_0 (Lipman et al. 2023);
    - "oracle": the marginal velocity of the whole data set itself (arXiv 2512.02826, Theorem 2.1), of variance 0;
    - "minibatch": E[cfm | x_t, the samples of this batch]. Which of them made x_t is, before it is seen, uniform over the batch (over those
      of its class, given a label): the samples are exchangeable, and the query's own is one of them, counted once. So by the tower rule
      its mean given x_t is the marginal velocity, and by Jensen's inequality its variance is never above that of "cfm".

    Attributes:
      path: the probability path.
      target: one of the three.
      times: the distribution of t.
      cosine_weight: weight of LightningDiT's direction term, the mean over places of 1 - cos(v, target), the angle being that of the
        channels; 0: none.

    Raises:
      ValueError: an unknown target, a negative weight.
    """

    path: Path = dataclasses.field(default_factory=RectifiedFlow)
    target: str = "cfm"
    times: TimeDistribution = dataclasses.field(default_factory=TimeDistribution)
    cosine_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target = {self.target!r}: expected one of {', '.join(TARGETS)}")
        if not self.cosine_weight >= 0:
            raise ValueError(f"cosine_weight = {self.cosine_weight}: expected 0 or more")

    def prepare(
        self,
        x_1: Float[Array, "B *shape"],
        label: Int[Array, " B"] | None,
        key: Array,
        *,
        null_label: int | None = None,
        own_class: Int[Array, " B"] | None = None,
        oracle: Oracle | None = None,
    ) -> Examples:
        """Draw noise and times for a batch, and compute its target velocities.

        Args:
          x_1, label: samples, and the label that the model is given for each; `null_label` in a row: no class.
          null_label: the label that stands for no class.
          own_class: the class of each sample, for "minibatch" where labels were dropped; None: `label` tells.
          oracle: of the whole data, for "oracle".

        Raises:
          ValueError: target "oracle" without an oracle.
        """
        noise_key, time_key = jax.random.split(key)
        x_1 = x_1.astype(jnp.float32)
        x_0 = jax.random.normal(noise_key, x_1.shape, jnp.float32)
        t = jnp.minimum(self.times.sample(time_key, len(x_1)), self.path.t_max)
        x_t = self.path.interpolate(x_0, x_1, t)
        asked = label if label is None or null_label is None else jnp.where(label == null_label, -1, label)
        if self.target == "cfm":
            target = self.path.conditional_velocity(x_0, x_1, t)
        elif self.target == "minibatch":
            target = minibatch_velocity(self.path, x_t, t, x_1, label if own_class is None else own_class, asked)
        elif oracle is None:
            raise ValueError('target = "oracle": needs an Oracle over the data set')
        else:
            target = oracle(x_t, t, asked if oracle.conditional else None, moments="velocity").velocity
        return Examples(x_t, t, label, jax.lax.stop_gradient(target))

    def losses(self, field: Field, examples: Examples) -> Losses:
        """The loss of each example."""
        return self.compare(field(examples.x_t, examples.t, examples.label), examples.target, examples.t)

    def compare(self, velocity: Float[Array, "B *shape"], target: Float[Array, "B *shape"], t: Float[Array, " B"]) -> Losses:
        """The losses of given velocities."""
        squared = squared_error(velocity, target)
        if self.cosine_weight == 0:
            return Losses(squared, squared, t)
        lengths = jnp.linalg.norm(velocity, axis=-1) * jnp.linalg.norm(target, axis=-1)
        cosine = jnp.sum(velocity * target, axis=-1) / jnp.maximum(lengths, 1e-8)
        turned = 1 - cosine.reshape(len(cosine), -1).mean(axis=1)
        return Losses(squared + self.cosine_weight * turned, squared, t)


def squared_error(velocity: Float[Array, "B *shape"], target: Float[Array, "B *shape"]) -> Float[Array, " B"]:
    """Mean over the values of each example of (velocity - target)²."""
    return jnp.mean(jnp.square(velocity - target).reshape(len(velocity), -1), axis=1)


def minibatch_velocity(
    path: Path,
    x_t: Float[Array, "B *shape"],
    t: Float[Array, " B"],
    samples: Float[Array, "M *shape"],
    classes: Int[Array, " M"] | None = None,
    label: Int[Array, " B"] | None = None,
) -> Float[Array, "B *shape"]:
    """E[u_cond | x_t, samples]: the oracle of a few samples, which must hold the sample of each query exactly once.

    Its mean given x_t (and the label) is the marginal velocity of the whole data set if, given the samples, each of them (of that class)
    is equally likely to be the query's own: so for the batch itself, drawn with or without replacement, and for a batch together with
    other samples drawn alike. A sample that is in both must stand there once.

    Args:
      x_t, t: queries.
      samples: `[M, *shape]`.
      classes: `[M]`, their classes; needed with `label`.
      label: `[B]`: the class that each query is conditioned on, -1: none; None: none of them is.
    """
    oracle = Oracle(samples, None if label is None else classes, path=path)
    return oracle(x_t, t, label, moments="velocity").velocity
