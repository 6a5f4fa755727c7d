"""LightningDiT in Flax NNX: a diffusion transformer with RMSNorm, SwiGLU, rotary positions and adaLN, for velocities.

Source: "Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models" (Yao et al., CVPR 2025), whose
checkpoints `flowjax.models.convert` reads; after DiT (Peebles and Xie 2023). Attributes are named as the published tensors are, and
weights are kept as they are there, `[out, in]`: the gradient of a weight is then the plain product of two matrices as they lie in memory,
where `[in, out]` made XLA copy one of them transposed (12 % of a step on CPU; XLA:TPU lays them out as it likes either way).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from flowjax.models.platform import platform
from flowjax.models.positions import halves_of_pairs, rotary_tables, rotate, sincos_positions, time_features
from flowjax.models.sizes import Architecture

Remat = Literal["none", "dots", "full"]
Gather = Callable[[Any], Any]
"""From the shards of parameters that a device holds to the parameters themselves: see `LightningDiT.__call__`."""

UNROLLED_DEPTH = 12  # on CPU: up to this many layers are worth compiling one by one


class Buffer(nnx.Variable):
    """Constants of a model, which are not trained."""


class Linear(nnx.Module):
    """`x Wᵀ + b` with a float32 weight `[out, in]`, computed in `dtype`."""

    def __init__(self, inputs: int, outputs: int, init: nnx.Initializer, dtype: DTypeLike, rngs: nnx.Rngs):
        self.weight = nnx.Param(init(rngs.params(), (outputs, inputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "*B inputs"]) -> Float[Array, "*B outputs"]:
        return affine(x, *self.parts(1)[0])

    def parts(self, count: int) -> list[tuple[Float[Array, "rows inputs"], Float[Array, " rows"]]]:
        """Weights and biases of `count` equal parts of the outputs, in `dtype`."""
        weights, biases = (jnp.split(v[...].astype(self.dtype), count) for v in (self.weight, self.bias))
        return list(zip(weights, biases, strict=True))


def affine(x: Float[Array, "*B inputs"], weight: Float[Array, "rows inputs"], bias: Float[Array, " rows"]) -> Float[Array, "*B rows"]:
    """`x Wᵀ + b` in the weight's dtype.

    On CPU a product of two matrices, whatever the axes of x: for three of them XLA:CPU copies the gradient of the result, transposed, to
    get that of the weight (8 % of a step). XLA:TPU copies none, and would for two, which fix how the tokens are laid out.
    """
    rows = x.reshape(-1, x.shape[-1]) if platform() == "cpu" else x
    product = jax.lax.dot_general(rows.astype(weight.dtype), weight, (((rows.ndim - 1,), (1,)), ((), ())))
    return (product + bias).reshape(*x.shape[:-1], len(bias))


class RMSNorm(nnx.Module):
    """`x / √(mean x² + ε) · weight · factor` over the last axis, in float32.

    The factor, adaLN's, is of a whole sample: joined to the weight first, it costs no pass over the tokens of its own.
    """

    def __init__(self, width: int):
        self.weight = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float[Array, "*B width"], factor: Float[Array, "B 1 width"]) -> Float[Array, "*B width"]:
        return normalized(x, self.weight[...] * factor)


def normalized(x: Float[Array, "*B width"], factor: Float[Array, "*#B width"]) -> Float[Array, "*B width"]:
    """`x / √(mean x² + ε) · factor` over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6) * factor


class Attention(nnx.Module):
    """Multi-head self-attention with rotary positions; softmax in float32.

    The pairs of a head that rotate are brought from (2i, 2i + 1), as published, to (i, i + head_dim / 2), by reordering the rows of the
    weights: scores do not depend on an order that queries and keys share, and halves rotate without an exchange of neighbours.
    """

    def __init__(self, shape: Architecture, dtype: DTypeLike, rngs: nnx.Rngs):
        self.qkv = Linear(shape.width, 3 * shape.width, XAVIER, dtype, rngs)
        self.proj = Linear(shape.width, shape.width, XAVIER, dtype, rngs)
        self.q_norm = RMSNorm(shape.head_dim) if shape.qk_norm else None
        self.k_norm = RMSNorm(shape.head_dim) if shape.qk_norm else None
        self.head_dim = shape.head_dim

    def __call__(self, x: Float[Array, "B T D"], rotary: tuple[Array, Array]) -> Float[Array, "B T D"]:
        query, key, value = self.qkv.parts(3)
        q, k = (self._rotated(x, part, norm, rotary) for part, norm in ((query, self.q_norm), (key, self.k_norm)))
        v = self._heads(affine(x, *value))
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32) * self.head_dim**-0.5
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        return self.proj(jnp.einsum("bhqk,bhkd->bhqd", weights, v).swapaxes(1, 2).reshape(x.shape))

    def _rotated(
        self, x: Float[Array, "B T D"], part: tuple[Array, Array], norm: RMSNorm | None, rotary: tuple[Array, Array]
    ) -> Float[Array, "B heads T d"]:
        found = self._heads(affine(x, *(halves_of_pairs(rows, self.head_dim) for rows in part)))
        if norm is not None:
            found = normalized(found, halves_of_pairs(norm.weight[...], self.head_dim)).astype(found.dtype)
        return rotate(found, *rotary)

    def _heads(self, x: Float[Array, "B T D"]) -> Float[Array, "B heads T d"]:
        """Heads first: batched products on CPU and TPU alike, with no transpose inside them."""
        return x.reshape(*x.shape[:2], -1, self.head_dim).swapaxes(1, 2)


class SwiGLU(nnx.Module):
    """`W₃ (silu(a) · b)` with `a, b = W₁₂ x`."""

    def __init__(self, shape: Architecture, dtype: DTypeLike, rngs: nnx.Rngs):
        self.w12 = Linear(shape.width, 2 * shape.hidden, XAVIER, dtype, rngs)
        self.w3 = Linear(shape.hidden, shape.width, XAVIER, dtype, rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate, value = jnp.split(self.w12(x), 2, axis=-1)
        return self.w3(jax.nn.silu(gate) * value)


class Modulation(nnx.Module):
    """`count` vectors that the condition gives a layer; all 0 before training."""

    def __init__(self, width: int, count: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.linear = Linear(width, count * width, nnx.initializers.zeros, dtype, rngs)
        self.count = count

    def __call__(self, activated: Float[Array, "B D"]) -> list[Float[Array, "B 1 D"]]:
        return jnp.split(self.linear(activated).astype(jnp.float32)[:, None], self.count, axis=-1)


class Block(nnx.Module):
    """One layer: attention and SwiGLU, each normed, shifted, scaled and gated by the condition. The residual stream is float32."""

    def __init__(self, shape: Architecture, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm1, self.norm2 = RMSNorm(shape.width), RMSNorm(shape.width)
        self.attn = Attention(shape, dtype, rngs)
        self.mlp = SwiGLU(shape, dtype, rngs)
        self.adaLN_modulation = Modulation(shape.width, 6, dtype, rngs)

    def __call__(self, x: Float[Array, "B T D"], activated: Float[Array, "B D"], rotary: tuple[Array, Array]) -> Float[Array, "B T D"]:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(activated)
        x = x + gate * self.attn(self.norm1(x, 1 + scale) + shift, rotary).astype(jnp.float32)
        return x + mlp_gate * self.mlp(self.norm2(x, 1 + mlp_scale) + mlp_shift).astype(jnp.float32)


class FinalLayer(nnx.Module):
    """From tokens to patches; all 0 before training."""

    def __init__(self, shape: Architecture, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm_final = RMSNorm(shape.width)
        self.linear = Linear(shape.width, shape.patch**2 * shape.out_channels, nnx.initializers.zeros, dtype, rngs)
        self.adaLN_modulation = Modulation(shape.width, 2, dtype, rngs)

    def __call__(self, x: Float[Array, "B T D"], activated: Float[Array, "B D"]) -> Float[Array, "B T out"]:
        shift, scale = self.adaLN_modulation(activated)
        return self.linear(self.norm_final(x, 1 + scale) + shift).astype(jnp.float32)


class TimeEmbedder(nnx.Module):
    """t to a vector: `time_features`, then two layers."""

    def __init__(self, width: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.first, self.second = Linear(256, width, SMALL, dtype, rngs), Linear(width, width, SMALL, dtype, rngs)

    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B D"]:
        return self.second(jax.nn.silu(self.first(time_features(t)))).astype(jnp.float32)


class LightningDiT(nnx.Module):
    """A velocity field `model(x, t, label)`.

        model = LightningDiT(Architecture.named("B/1", (16, 16, 32), num_classes=1000), rngs=nnx.Rngs(0))
        velocity = model(x, t, label)               # x [B, H, W, C], t scalar or [B], label None or [B]
        model = convert_lightningdit("lightningdit-xl-imagenet256-800ep.pt")

    The layers are one `Block` whose parameters have a leading axis of `depth`, and are scanned: one layer is compiled, however many there
    are. Parameters are float32; so are norms, softmax, the residual stream and the result.

    Args:
      shape: the architecture.
      rngs: of the initial parameters, as published: Xavier-uniform, modulations and the last layer 0.
      dtype: of the matrix products; bfloat16 for accelerators.
      remat: values that the backward pass computes again, not keeps: "none", "dots" (all but matrix products) or "full" (each layer).
      scan: False compiles the layers one by one, which on CPU runs a quarter faster, since a scan copies what the backward pass needs into
        stacked arrays; None: so on CPU, up to 12 layers, and scanned elsewhere.

    Raises:
      ValueError: an unknown remat.
    """

    def __init__(
        self,
        shape: Architecture,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        scan: bool | None = None,
    ):
        if remat not in ("none", "dots", "full"):
            raise ValueError(f"remat = {remat!r}: expected none, dots or full")
        self.shape, self.remat = shape, remat
        self.scan = (platform() != "cpu" or shape.depth > UNROLLED_DEPTH) if scan is None else scan
        self.x_embedder = Linear(shape.patch**2 * shape.image_shape[2], shape.width, XAVIER, dtype, rngs)
        self.t_embedder = TimeEmbedder(shape.width, dtype, rngs)
        self.y_embedder = nnx.Param(SMALL(rngs.params(), (shape.num_classes + 1, shape.width), jnp.float32))
        self.pos_embed = Buffer(jnp.asarray(sincos_positions(shape.width, shape.grid)))
        self.rotary_cos, self.rotary_sin = (Buffer(jnp.asarray(table)) for table in rotary_tables(shape.head_dim, shape.grid))
        self.blocks = _stacked(shape, dtype, rngs)
        self.final_layer = FinalLayer(shape, dtype, rngs)

    @property
    def null_label(self) -> int:
        """The label that stands for none."""
        return self.shape.num_classes

    def __call__(self, x: ArrayLike, t: ArrayLike, label: ArrayLike | None = None, *, gather: Gather | None = None) -> Array:
        """The velocity, float32.

        Args:
          x: `[B, H, W, C]`.
          t: scalar or `[B]`, in [0, 1]; 0 is noise.
          label: `[B]` or scalar, `num_classes` for none; None: none in every row.
          gather: makes whole parameters of one layer's shards, when the layer's turn comes; inside a `shard_map` over which the layers'
            parameters are distributed. The backward pass gathers them again, and its transpose scatters the gradients.

        Returns:
          `[B, H, W, C]`.

        Raises:
          ValueError: x is not of the model's shape.
        """
        x = jnp.asarray(x).astype(jnp.float32)
        if x.ndim != 4 or x.shape[1:] != self.shape.image_shape:
            raise ValueError(f"x has shape {x.shape}: expected [B, H, W, C] with {self.shape.image_shape}")
        t = jnp.broadcast_to(jnp.asarray(t).astype(jnp.float32), x.shape[:1])
        label = jnp.broadcast_to(jnp.asarray(self.null_label if label is None else label).astype(jnp.int32), x.shape[:1])
        activated = jax.nn.silu(self.t_embedder(t) + self.y_embedder[...][label])
        tokens = self.x_embedder(_patches(x, self.shape.patch)).astype(jnp.float32) + self.pos_embed[...]
        out = self.final_layer(self._layers(tokens, activated, gather), activated)
        return _image(out, self.shape)[..., : self.shape.image_shape[2]]

    def _layers(self, x: Float[Array, "B T D"], activated: Float[Array, "B D"], gather: Gather | None) -> Float[Array, "B T D"]:
        definition, parameters = nnx.split(self.blocks)
        rotary = self.rotary_cos[:, ::2], self.rotary_sin[:, ::2]  # each frequency stands there twice, once for each of a pair

        def layer(x: Array, own: Any) -> Array:
            return nnx.merge(definition, own if gather is None else gather(own))(x, activated, rotary)

        if self.remat != "none" or gather is not None:
            layer = jax.checkpoint(layer, policy=_POLICIES[self.remat])
        if self.scan:
            return jax.lax.scan(lambda x, own: (layer(x, own), None), x, parameters)[0]
        for i in range(self.shape.depth):
            x = layer(x, jax.tree.map(lambda p, i=i: p[i], parameters))
        return x


XAVIER = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=-1, out_axis=-2)
SMALL = nnx.initializers.normal(0.02)


_MOVES = frozenset({"all_gather", "convert_element_type", "split", "slice", "reshape", "transpose", "concatenate", "gather", "squeeze"})


def _keep_activations(primitive: Any, *operands: Any, **_: Any) -> bool:
    """Keep everything but gathered parameters and what is cut and cast from them: those have two axes where activations have three."""
    return primitive.name not in _MOVES or (primitive.name != "all_gather" and operands[0].ndim > 2)


_POLICIES: dict[str, Any] = {
    "none": _keep_activations,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _stacked(shape: Architecture, dtype: DTypeLike, rngs: nnx.Rngs) -> Block:
    """All layers as one, every parameter with a leading axis of `depth`."""

    @nnx.split_rngs(splits=shape.depth)
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> Block:
        return Block(shape, dtype, rngs)

    return make(rngs)


def _patches(x: Float[Array, "B H W C"], patch: int) -> Float[Array, "B T P"]:
    """Patches row by row, each laid out `[patch, patch, C]`."""
    b, height, width, channels = x.shape
    tiles = x.reshape(b, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
    return tiles.reshape(b, -1, patch * patch * channels)


def _image(tokens: Float[Array, "B T P"], shape: Architecture) -> Float[Array, "B H W out"]:
    """The inverse of `_patches`."""
    (rows, columns), patch = shape.grid, shape.patch
    tiles = tokens.reshape(-1, rows, columns, patch, patch, shape.out_channels).swapaxes(2, 3)
    return tiles.reshape(-1, rows * patch, columns * patch, shape.out_channels)


def parameter_count(model: nnx.Module) -> int:
    """Number of trained parameters."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
