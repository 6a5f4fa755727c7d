"""The state of training, and the one step that moves it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, UInt32

from flowjax.data.pipeline import Batch
from flowjax.models.platform import compiled_for
from flowjax.training import sharding
from flowjax.training.task import Metrics, Task


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes, and the key from which it draws. A pytree; what a checkpoint holds."""

    step: Int[Array, ""]
    """Steps done."""
    key: UInt32[Array, " 2"]
    """Root of all draws: those of step n come from (key, n)."""
    parameters: Any
    ema: Any
    optimizer: Any


def make_optimizer(
    learning_rate: float, *, warmup: int = 0, decay_steps: int = 0, beta2: float = 0.95, weight_decay: float = 0.0, clip: float = 1.0
) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm, with a linear warm-up.

    Args:
      warmup: steps from 0 to the learning rate.
      decay_steps: steps in all, over which a cosine then brings it to 0; 0: it stays.
      clip: greatest norm of a gradient; 0: none.

    Raises:
      ValueError: numbers that cannot be.
    """
    if not learning_rate > 0 or warmup < 0 or not 0 <= beta2 < 1 or weight_decay < 0 or clip < 0:
        raise ValueError(
            f"optimizer.learning_rate = {learning_rate}, warmup = {warmup}, beta2 = {beta2}, weight_decay = {weight_decay}, clip = {clip}: "
            "expected a rate above 0, beta2 in [0, 1), the others 0 or more"
        )
    if decay_steps:
        rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(decay_steps, warmup + 1))
    else:
        rate = optax.join_schedules(
            [optax.linear_schedule(0.0, learning_rate, max(warmup, 1)), optax.constant_schedule(learning_rate)], [warmup]
        )
    adamw = optax.adamw(rate, b1=0.9, b2=beta2, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A task with its optimizer, on a mesh.

    Attributes:
      ema_decay: of the averaged parameters, `min(ema_decay, (1 + n) / (10 + n))` at step n, so that short runs forget their beginnings.
      accumulation: parts in which each device goes through its share of a batch; the result is the same but for rounding.
    """

    task: Task
    optimizer: optax.GradientTransformation
    mesh: Mesh
    ema_decay: float = 0.9999
    accumulation: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay = {self.ema_decay}: expected 0 or more, and below 1")
        if self.accumulation < 1:
            raise ValueError(f"accumulation = {self.accumulation}: expected at least 1")

    def check_batch(self, batch_size: int) -> None:
        """Raise a ValueError if a batch cannot be divided among the devices in equal parts."""
        parts = self.mesh.size * self.accumulation
        if batch_size < 1 or batch_size % parts:
            raise ValueError(
                f"batch_size = {batch_size}: expected a multiple of {parts} ({self.mesh.size} devices x accumulation {self.accumulation})"
            )

    def init(self, seed: int) -> State:
        """The state before the first step, on the devices of the mesh."""
        return jax.jit(functools.partial(self._first, seed), out_shardings=self.shardings())()

    def shardings(self) -> Any:
        """Where the parts of a state lie."""
        shapes = self.abstract()
        whole = NamedSharding(self.mesh, PartitionSpec())
        layout = jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self._specs(shapes.parameters))
        follow = optax.tree_utils.tree_map_params(
            self.optimizer, lambda _, own: own, shapes.optimizer, layout, transform_non_params=lambda _: whole
        )
        return State(whole, whole, layout, layout, follow)  # type: ignore[arg-type]

    @functools.lru_cache(maxsize=1)  # noqa: B019 a trainer lives as long as its run
    def abstract(self) -> State:
        """Shapes and dtypes of a state; nothing is allocated."""
        return jax.eval_shape(functools.partial(self._first, 0))

    def placed(self) -> State:
        """The same, and where the parts lie."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), self.abstract(), self.shardings()
        )

    def model(self, parameters: Any) -> Any:
        """The model with these parameters, whole ones; for use under `jit`, where making the first ones for nothing costs nothing."""
        definition, _, *rest = nnx.split(self.task.build(nnx.Rngs(0)), nnx.Param, ...)
        return nnx.merge(definition, parameters, *rest)

    def step(self) -> jax.stages.Wrapped:
        """The jitted step `(state, batch, constants) -> (state, metrics)`. It takes the state's memory: do not use that again.

        Metrics: what the task reports, `loss`, and `gradient_norm` before clipping. `constants` are whole on every device.
        """
        return jax.jit(self._step, donate_argnums=0, out_shardings=(self.shardings(), NamedSharding(self.mesh, PartitionSpec())))

    def _step(self, state: State, batch: Batch, constants: Any) -> tuple[State, Metrics]:
        with compiled_for(self.mesh.devices.flat[0].platform):
            return self._moved(state, batch, constants)

    def _moved(self, state: State, batch: Batch, constants: Any) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        examples = self.task.prepare(batch, key, constants)
        gradient, metrics = self._gradient(state.parameters, examples, constants)
        with jax.numpy_dtype_promotion("standard"):  # optax takes powers of Python floats and int32 counts
            updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(jnp.float32(self.ema_decay), (1 + n) / (10 + n))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, parameters)
        return State(state.step + 1, state.key, parameters, ema, optimizer), metrics | {"gradient_norm": optax.tree.norm(gradient)}

    def _gradient(self, parameters: Any, examples: Any, constants: Any) -> tuple[Any, Metrics]:
        """The mean gradient over the batch, sharded like the parameters, and the mean metrics."""
        axes = self._axes(parameters)
        layer_axes = None if self.task.stacked is None else jax.tree.map(lambda a: a - (a > 0), axes[self.task.stacked])
        sharded = self.mesh.shape["fsdp"] > 1
        gather = (lambda own: sharding.gathered(own, layer_axes)) if sharded and layer_axes is not None else None

        def loss(own: Any, part: Any, constants: Any) -> tuple[Array, Metrics]:
            if sharded:  # what is stacked is gathered by the model, layer by layer
                whole = sharding.gathered(own, axes)
                if self.task.stacked is not None:
                    whole[self.task.stacked] = own[self.task.stacked]
                own = whole
            value, metrics = self.task.loss(self.model(own), part, constants, gather)
            return value, {"loss": value, **metrics}

        def share(own: Any, examples: Any, constants: Any) -> tuple[Any, Metrics]:
            found = _mean_over_parts(lambda part: jax.grad(loss, has_aux=True)(own, part, constants), examples, self.accumulation)
            gradient, metrics = found
            scale = 1 / self.mesh.size
            return jax.tree.map(lambda g: g * scale, sharding.summed(gradient, axes)), jax.lax.pmean(metrics, sharding.AXES)

        of_parameters = self._specs(parameters)
        return jax.shard_map(
            share,
            mesh=self.mesh,
            in_specs=(of_parameters, PartitionSpec(sharding.AXES), PartitionSpec()),
            out_specs=(of_parameters, PartitionSpec()),
            check_vma=False,
        )(parameters, examples, constants)

    def _first(self, seed: int) -> State:
        key = jax.random.key(seed)
        model = self.task.build(nnx.Rngs(params=jax.random.fold_in(key, 0)))
        parameters = nnx.state(model, nnx.Param)
        root = jax.random.key_data(jax.random.fold_in(key, 1))
        return State(jnp.int32(0), root, parameters, jax.tree.map(jnp.copy, parameters), self.optimizer.init(parameters))

    def _axes(self, parameters: Any) -> Any:
        return sharding.sharded_axes(parameters, self.mesh.shape["fsdp"], self.task.stacked)

    def _specs(self, parameters: Any) -> Any:
        return sharding.specs(parameters, self._axes(parameters))


def _mean_over_parts(f: Callable[[Any], Any], examples: Any, parts: int) -> Any:
    """The mean of f over equal parts of the examples, one part after the other."""
    if parts == 1:
        return f(examples)
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), examples)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(f, jax.tree.map(lambda leaf: leaf[0], split)))
    total, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, f(part)), None), start, split)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def parameters_digest(parameters: Any) -> str:
    """SHA-256, in hexadecimal, over the bytes of all parameters in the order of their names."""
    digest = hashlib.sha256()
    for _, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
