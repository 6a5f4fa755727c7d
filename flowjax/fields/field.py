"""The field protocol, and the fields of an oracle, of a JAX model, and of several that follow each other in t.

A field is a pytree: pass it to a jitted function as an argument. What can be set (edges in t) are its leaves, so that a
sweep over them compiles once.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.oracle import Oracle
from flowjax.oracle.host_call import HostCall, host_call, velocity_by_host
from flowjax.path import Path

if TYPE_CHECKING:
    import flax.nnx

Label = Int[Array, " B"] | None


@runtime_checkable
class Field(Protocol):
    """`dx/dt = field(x, t, label)`."""

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        """The velocity `[B, *shape]` at x `[B, *shape]` and one time t; label `[B]`, None: conditioned on nothing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OracleField:
    """The exact marginal velocity of a data set."""

    oracle: Oracle

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        return self.oracle(x, t, label, moments="velocity").velocity

    def divergence(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, " B"]:
        """∇·u*, exactly."""
        found = self.oracle(x, t, label).divergence
        assert found is not None
        return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HostOracleField:
    """The same velocity, by the CPU engine, called from the compiled program: late in time that skips most samples. Made by `on_host`."""

    call: HostCall = dataclasses.field(metadata={"static": True})
    path: Path = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        return velocity_by_host(self.call, self.path, x, t, label)


def on_host(field: Field, *arguments: Any) -> Field:
    """The field with every oracle in it that the CPU engine can compute as a `HostOracleField`; as it is under tracing.

    Args:
      arguments: of the program that takes the field. If they lie on several devices, or are traced, the field is left as it is: only the
        compiled oracle runs there, or has derivatives.
    """
    leaves = jax.tree.leaves((field, arguments))
    if any(isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and len(leaf.devices()) > 1) for leaf in leaves):
        return field
    is_oracle = lambda part: isinstance(part, OracleField)  # noqa: E731

    def called(part: Any) -> Any:
        call = host_call(part.oracle) if is_oracle(part) else None
        return part if call is None else HostOracleField(call, part.oracle.path)

    return jax.tree.map(called, field, is_leaf=is_oracle)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelField:
    """A trained model, `model(x, t, label)`; its parameters are leaves. Made by `model_field`."""

    parameters: Any
    definition: Any = dataclasses.field(metadata={"static": True})
    null_label: int = dataclasses.field(metadata={"static": True})
    """What the model is told where it is conditioned on nothing."""

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        from flax import nnx

        told = jnp.full(len(x), self.null_label, jnp.int32) if label is None else label
        return nnx.merge(self.definition, self.parameters)(x, jnp.full(len(x), t), told)


def model_field(model: "flax.nnx.Module", num_classes: int) -> ModelField:
    """The field of a model that takes `num_classes` as its null label (`LightningDiT` does)."""
    from flax import nnx

    definition, parameters = nnx.split(model)
    return ModelField(parameters, definition, num_classes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Staged:
    """Several fields, one after the other in t: `fields[k]` where `edges[k-1] <= t < edges[k]`. Made by `staged`.

    A solver's step that begins before an edge and looks beyond it (Heun's, midpoint's) sees both fields; put edges on its grid.
    """

    fields: tuple[Field, ...]
    edges: Float[Array, " K"]

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        return self._switch([lambda *at, field=field: field(*at) for field in self.fields], x, t, label)

    def divergence(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, " B"]:
        """∇·u of the field in force at t."""
        return self._switch([lambda *at, field=field: divergence(field, *at) for field in self.fields], x, t, label)

    def _switch(self, branches: Sequence[Callable[..., Array]], x: Array, t: Array, label: Label) -> Array:
        return jax.lax.switch(jnp.sum(t >= self.edges), branches, x, t, label)


def staged(fields: Sequence[Field], edges: Sequence[float]) -> Staged:
    """Fields, and the t at which each but the first takes over.

    Raises:
      ValueError: edges that are not one fewer than fields, outside [0, 1], or falling. Equal ones leave a field without a turn.
    """
    times = np.asarray(edges, np.float64)
    if len(fields) != len(times) + 1 or not ((times >= 0) & (times <= 1)).all() or (np.diff(times) < 0).any():
        raise ValueError(
            f"edges = {list(edges)}: expected {len(fields) - 1} for {len(fields)} fields, in [0, 1], none below the one before"
        )
    return Staged(tuple(fields), jnp.asarray(times, jnp.float32))


def divergence(
    field: Field, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label, probes: Float[Array, "P B *shape"] | None = None
) -> Float[Array, " B"]:
    """∇·u: exact where the field knows it, or without probes (D products with the Jacobian); else Hutchinson's mean of `vᵀ (∂u/∂x) v`.

    Args:
      probes: v, of mean 0 and identity covariance; signs have the least variance.

    References:
      Hutchinson 1989; Grathwohl et al. 2019 for its use on flows.
    """
    own = getattr(field, "divergence", None)
    if own is not None:
        return own(x, t, label)
    _, pull = jax.vjp(lambda y: field(y, t, label), x)
    if probes is not None:
        return jnp.mean(jax.lax.map(lambda v: _dot(v, pull(v)[0]), probes), axis=0)
    d = math.prod(x.shape[1:])
    units = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype)[:, None], (d, len(x), d)).reshape(d, *x.shape)
    return jnp.sum(jax.lax.map(lambda v: _dot(v, pull(v)[0]), units), axis=0)


def _dot(a: Float[Array, "B *shape"], b: Float[Array, "B *shape"]) -> Float[Array, " B"]:
    return jnp.sum((a * b).reshape(len(a), -1), axis=1)
