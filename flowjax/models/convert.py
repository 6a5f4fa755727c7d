"""Published LightningDiT checkpoints, read without PyTorch and written back in the same layout."""

import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.formats.torch_file import read_torch
from flowjax.models.lightningdit import Buffer, LightningDiT, Remat
from flowjax.models.positions import rotary_tables
from flowjax.models.sizes import SIZES, Architecture
from flowjax.runtime import storage

Tensors = dict[str, np.ndarray]

# Published name -> where it stands in the model. Names in blocks are those of one layer.
_OUTSIDE = {
    "x_embedder.proj.weight": "x_embedder.weight",
    "x_embedder.proj.bias": "x_embedder.bias",
    "pos_embed": "pos_embed",
    "t_embedder.mlp.0.weight": "t_embedder.first.weight",
    "t_embedder.mlp.0.bias": "t_embedder.first.bias",
    "t_embedder.mlp.2.weight": "t_embedder.second.weight",
    "t_embedder.mlp.2.bias": "t_embedder.second.bias",
    "y_embedder.embedding_table.weight": "y_embedder",
    "final_layer.norm_final.weight": "final_layer.norm_final.weight",
    "final_layer.linear.weight": "final_layer.linear.weight",
    "final_layer.linear.bias": "final_layer.linear.bias",
    "final_layer.adaLN_modulation.1.weight": "final_layer.adaLN_modulation.linear.weight",
    "final_layer.adaLN_modulation.1.bias": "final_layer.adaLN_modulation.linear.bias",
    "feat_rope.freqs_cos": "rotary_cos",
    "feat_rope.freqs_sin": "rotary_sin",
}
_IN_BLOCK = {
    **{f"{name}.weight": f"{name}.weight" for name in ("norm1", "norm2")},
    **{f"{name}.{kind}": f"{name}.{kind}" for name in ("attn.qkv", "attn.proj", "mlp.w12", "mlp.w3") for kind in ("weight", "bias")},
    **{f"adaLN_modulation.1.{kind}": f"adaLN_modulation.linear.{kind}" for kind in ("weight", "bias")},
}
_QK_NORM = {f"attn.{name}.weight": f"attn.{name}.weight" for name in ("q_norm", "k_norm")}
_COMPUTED = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")  # may be missing: they follow from the shape


def convert_lightningdit(
    path: str | os.PathLike,
    *,
    image_shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike = jnp.float32,
    remat: Remat = "none",
    scan: bool | None = None,
) -> LightningDiT:
    """The model of a published checkpoint; its size is read off the tensors.

    Args:
      path: `.pt` (the entry `ema` is taken if there is one, else the dictionary itself) or `.safetensors`. Nothing in it is run.
      image_shape: (H, W, C), of which the file tells H W and C alone; None: they are square.
      dtype, remat, scan: as in `LightningDiT`.

    Returns:
      The model, `model(x, t, label)` with x `[B, H, W, C]`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that cannot be read; a tensor that is missing, unknown, of another shape, or not finite.
    """
    return lightningdit_of(_read(pathlib.Path(path).expanduser()), path, image_shape=image_shape, dtype=dtype, remat=remat, scan=scan)


def lightningdit_of(
    tensors: Tensors,
    path: str | os.PathLike,
    *,
    image_shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike = jnp.float32,
    remat: Remat = "none",
    scan: bool | None = None,
) -> LightningDiT:
    """The same of tensors that have been read; `path`: where, for messages."""
    shape = _architecture(tensors, path, image_shape)
    expected = _layout(shape)
    _check_names(path, tensors, expected)
    # Its shapes alone: no first weights are drawn, which would cost the memory of a second model and seconds of compiling.
    model = nnx.eval_shape(lambda: LightningDiT(shape, rngs=nnx.Rngs(0), dtype=dtype, remat=remat, scan=scan))
    slots = _slots(model)
    tables = dict(zip(_COMPUTED, rotary_tables(shape.head_dim, shape.grid), strict=True))
    for place, names in _grouped(expected).items():
        found = [_checked(path, name, tensors[name], expected[name]) if name in tensors else tables[name] for name in names]
        values = [_own_layout(name, value, shape) for name, value in zip(names, found, strict=True)]
        slots[place].set_value(jnp.asarray((np.stack(values) if place.startswith("blocks.") else values[0]).astype(np.float32)))
    return model


def export_lightningdit(model: LightningDiT, path: str | os.PathLike | None = None) -> Tensors:
    """The inverse: every tensor under its published name and in its published shape, float32.

    Args:
      path: `.safetensors` to write them to as well; None: nowhere. A file that is there is replaced in one move.

    Raises:
      ValueError: a path that does not end in .safetensors.
    """
    slots, tensors = _slots(model), {}
    for place, names in _grouped(_layout(model.shape)).items():
        value = np.asarray(slots[place][...], np.float32)
        for name, part in zip(names, value if place.startswith("blocks.") else [value], strict=True):
            tensors[name] = np.ascontiguousarray(_published_layout(name, part, model.shape))
    if path is not None:
        write_tensors(tensors, path, {})
    return tensors


def write_tensors(tensors: Tensors, path: str | os.PathLike, metadata: Mapping[str, str]) -> None:
    """Write a `.safetensors` file; one that is there is replaced in one move.

    Raises:
      ValueError: a path that does not end in .safetensors.
    """
    target = storage.located(path)
    if target.suffix != ".safetensors":
        raise ValueError(f"path = {str(path)!r}: expected a name that ends in .safetensors")
    storage.write_whole(target, lambda file: save_file(tensors, file, dict(metadata)))


def _read(path: pathlib.Path) -> Tensors:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    found: Mapping[Any, Any] = read_torch(path, plain=True)
    for key in ("ema", "model"):
        if isinstance(found.get(key), dict):
            found = found[key]
            break
    # A model that was trained by several processes at once carries a prefix.
    return {str(name).removeprefix("module."): value for name, value in found.items() if isinstance(value, np.ndarray)}


def _architecture(tensors: Tensors, path: Any, image_shape: tuple[int, int, int] | None) -> Architecture:
    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != rank:
            raise ValueError(f"{path}: is no LightningDiT: expected a tensor {name} of rank {rank}; it holds {_few(sorted(tensors))}")
        return tensors[name].shape

    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    tokens = shape("pos_embed", 3)[1]
    layers = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    depth = max(layers, default=-1) + 1
    qk_norm = "blocks.0.attn.q_norm.weight" in tensors
    if qk_norm:
        head_dim = shape("blocks.0.attn.q_norm.weight", 1)[0]
    elif "feat_rope.freqs_cos" in tensors:
        head_dim = shape("feat_rope.freqs_cos", 2)[1]
    else:
        known = [w // h for d, w, h in SIZES.values() if (d, w) == (depth, width)]
        if not known:
            raise ValueError(f"{path}: has no feat_rope.freqs_cos, and depth {depth}, width {width} is no known size: heads are not known")
        head_dim = known[0]
    side = math.isqrt(tokens)
    if (image_shape is None and side * side != tokens) or not head_dim or width % head_dim:
        raise ValueError(f"{path}: {tokens} tokens and heads of {head_dim} in a width of {width}: expected a square and a divisor")
    shape_of_images = image_shape or (side * patch, side * patch, channels)
    if shape_of_images[0] * shape_of_images[1] != tokens * patch**2 or shape_of_images[2] != channels:
        raise ValueError(f"{path}: {tokens} tokens of {patch}x{patch}x{channels} are no image of shape {shape_of_images}")
    outputs = shape("final_layer.linear.weight", 2)[0]
    return Architecture(
        image_shape=shape_of_images,
        patch=patch,
        depth=depth,
        width=width,
        heads=width // head_dim,
        num_classes=shape("y_embedder.embedding_table.weight", 2)[0] - 1,
        qk_norm=qk_norm,
        learn_sigma=outputs == 2 * patch * patch * channels,
    )


def _layout(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """Every published name with its published shape."""
    width, hidden, head = shape.width, shape.hidden, shape.head_dim
    outputs = shape.patch**2 * shape.out_channels
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (width, shape.image_shape[2], shape.patch, shape.patch),
        "x_embedder.proj.bias": (width,),
        "pos_embed": (1, shape.tokens, width),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "y_embedder.embedding_table.weight": (shape.num_classes + 1, width),
        "final_layer.norm_final.weight": (width,),
        "final_layer.linear.weight": (outputs, width),
        "final_layer.linear.bias": (outputs,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
        "feat_rope.freqs_cos": (shape.tokens, head),
        "feat_rope.freqs_sin": (shape.tokens, head),
    }
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm2.weight": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.w12.weight": (2 * hidden, width),
        "mlp.w12.bias": (2 * hidden,),
        "mlp.w3.weight": (width, hidden),
        "mlp.w3.bias": (width,),
        "adaLN_modulation.1.weight": (6 * width, width),
        "adaLN_modulation.1.bias": (6 * width,),
    }
    if shape.qk_norm:
        block |= {"attn.q_norm.weight": (head,), "attn.k_norm.weight": (head,)}
    return shapes | {f"blocks.{i}.{name}": size for i in range(shape.depth) for name, size in block.items()}


def _grouped(names: Mapping[str, Any]) -> dict[str, list[str]]:
    """Place in the model -> the published tensors that it holds: one, or one for each layer, in order."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if name in _OUTSIDE:
            groups[_OUTSIDE[name]] = [name]
        else:
            inner = name.split(".", 2)[2]
            groups.setdefault(f"blocks.{(_IN_BLOCK | _QK_NORM)[inner]}", []).append(name)
    return groups


def _slots(model: LightningDiT) -> dict[str, nnx.Variable]:
    """Every variable of the model by its dotted path."""
    state = nnx.state(model, (nnx.Param, Buffer))
    return {".".join(str(part) for part in path): variable for path, variable in nnx.to_flat_state(state)}


def _check_names(path: Any, tensors: Tensors, expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in tensors and name not in _COMPUTED]
    unknown = [name for name in tensors if name not in expected]
    if missing or unknown:
        told = [f"{word} {_few(names)}" for word, names in (("lacks", missing), ("has also", unknown)) if names]
        raise ValueError(f"{path}: is not the LightningDiT that its tensors describe: it {' and '.join(told)}")


def _checked(path: Any, name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape != shape:
        raise ValueError(f"{path}: {name} has shape {value.shape}, expected {shape}")
    wide = value.astype(np.float32)
    if not np.isfinite(wide).all():
        raise ValueError(f"{path}: {name} has values that are NaN or infinite")
    return wide


def _own_layout(name: str, value: np.ndarray, shape: Architecture) -> np.ndarray:
    """Patches are laid out [patch, patch, C] here, and [C, patch, patch] in the published convolution."""
    return value.transpose(0, 2, 3, 1).reshape(shape.width, -1) if name == "x_embedder.proj.weight" else value


def _published_layout(name: str, value: np.ndarray, shape: Architecture) -> np.ndarray:
    if name != "x_embedder.proj.weight":
        return value
    return value.reshape(shape.width, shape.patch, shape.patch, -1).transpose(0, 3, 1, 2)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"
