"""A trained flow in one file: the published layout of LightningDiT, with facts about its training in the header.

A staged flow, of several models one after the other in t, is one file too: the tensors of stage k under `stages.k.`, the t at which each
but the first takes over in the header.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowjax.data.formats.safetensors_file import read_metadata, read_safetensors
from flowjax.fields import Field, model_field, staged
from flowjax.models.convert import Tensors, convert_lightningdit, export_lightningdit, lightningdit_of, write_tensors
from flowjax.models.flow import Flow
from flowjax.models.lightningdit import LightningDiT, parameter_count
from flowjax.runtime import storage

FILE = "model.safetensors"
_KEY = "flowjax"


@dataclasses.dataclass(frozen=True)
class TrainedFlow(Flow):
    """A model, or several that follow each other in t, and facts about it.

    Attributes:
      model: the only one, or the first in t.
      source: where it was read.
      about: plain JSON values. `experiments.train` writes `config`, `dataset`, `step`, `path`, `image_shape`, `value_range`,
        `class_names`, `normalization` and, when it has measured it, `frechet`; a published checkpoint says nothing.
      later: what follows the first, and `edges`, the t at which each of these takes over.
    """

    model: LightningDiT
    source: pathlib.Path
    about: Mapping[str, Any]
    later: tuple[LightningDiT, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def field(self) -> Field:
        """Its velocity field."""
        fields = [model_field(model, self.num_classes) for model in (self.model, *self.later)]
        return staged(fields, self.edges) if self.later else fields[0]

    @property
    def digest(self) -> str:
        """A fingerprint of the file."""
        with open(self.source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def num_classes(self) -> int:
        """Labels it was trained on; 0: none."""
        return self.model.shape.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its samples."""
        return self.model.shape.image_shape

    @property
    def parameters(self) -> int:
        """Of the first."""
        return parameter_count(self.model)

    @property
    def size(self) -> Mapping[str, Any]:
        """Of the first."""
        return dataclasses.asdict(self.model.shape)


def save_trained(model: LightningDiT, path: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Write a model, and facts about it in plain JSON values. An existing file is replaced in one move."""
    write_tensors(export_lightningdit(model), path, {_KEY: json.dumps({**about, "image_shape": list(model.shape.image_shape)})})


def save_staged(models: Sequence[LightningDiT], edges: Sequence[float], path: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Write models that follow each other in t, one for each stage, as one file; `load_trained` gives back the flow that they make.

    Raises:
      ValueError: as `flowjax.fields.staged`; models of different samples or classes.
    """
    check_stages(models, edges)
    tensors = {f"{_stage(k)}{name}": value for k, model in enumerate(models) for name, value in export_lightningdit(model).items()}
    held = {**about, "image_shape": list(models[0].shape.image_shape), "edges": list(edges)}
    write_tensors(tensors, path, {_KEY: json.dumps(held)})


def check_stages(models: Sequence[LightningDiT], edges: Sequence[float]) -> None:
    """Raise a ValueError unless one flow can be made of these models."""
    makes = {(model.shape.image_shape, model.shape.num_classes) for model in models}
    if len(makes) != 1:
        told = " and ".join(f"{shape} in {classes} classes" for shape, classes in sorted(makes))
        raise ValueError(f"stages that make samples of shape {told}: expected models of the same samples")
    staged([model_field(model, model.shape.num_classes) for model in models], edges)


def _stage(k: int) -> str:
    return f"stages.{k}."


def load_trained(path: str | os.PathLike) -> TrainedFlow:
    """The model of a folder of `experiments.train`, of a file that it or `save_staged` wrote, or of a published checkpoint.

    Raises:
      FileNotFoundError: no such file; a folder without a model.
      ValueError: a file that is no LightningDiT, nor stages of them.
    """
    given = storage.located(path)
    if given.is_dir():
        if not (given / FILE).is_file():
            raise FileNotFoundError(f"{given} holds no {FILE}: give a folder that experiments.train wrote, or a checkpoint file")
        given = given / FILE
    elif not given.is_file():
        raise FileNotFoundError(f"{given}: no such file; give a folder of experiments.train, or a .safetensors or .pt checkpoint")
    found = storage.fetched(given)
    about = _about(found) if found.suffix == ".safetensors" else {}
    image_shape = tuple(about["image_shape"]) if about.get("image_shape") else None
    if "edges" not in about:
        return TrainedFlow(convert_lightningdit(found, image_shape=image_shape), found, about)
    held, edges = read_safetensors(found), tuple(about["edges"])
    models = [lightningdit_of(_of_stage(held, k), f"{found}, stage {k}", image_shape=image_shape) for k in range(len(edges) + 1)]
    check_stages(models, edges)
    return TrainedFlow(models[0], found, about, tuple(models[1:]), edges)


def _about(path: pathlib.Path) -> dict[str, Any]:
    """What a file says of its model. It may be from anywhere: every value that is used has the form that `save_trained` gives it."""
    try:
        about = json.loads(read_metadata(path).get(_KEY, "{}"))
        wrong = [key for key, is_sound in _FORMS.items() if about.get(key) is not None and not is_sound(about[key])]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: what it says of itself cannot be read ({error})") from error
    if wrong:
        raise ValueError(f"{path}: what it says of itself cannot be read ({wrong[0]} = {str(about[wrong[0]])[:80]})")
    return about


def _numbers(value: Any, count: int | None = None) -> bool:
    return isinstance(value, list) and count in (None, len(value)) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "config": lambda held: (
        isinstance(held, dict)
        and isinstance(held.get("data"), dict)
        and isinstance(held.get("seed"), int)
        and _is_number(held.get("heldout_fraction"))
    ),
    "image_shape": lambda held: _numbers(held, 3) and all(isinstance(side, int) and side > 0 for side in held),
    "edges": _numbers,
    "path": lambda held: isinstance(held, str),
    "step": lambda held: isinstance(held, int),
    "value_range": lambda held: _numbers(held, 2),
    "normalization": lambda held: (
        isinstance(held, dict)
        and all(_is_number(held.get(key)) or _numbers(held.get(key)) for key in ("mean", "std"))
        and _is_number(held.get("multiplier"))
    ),
    "frechet": lambda held: isinstance(held, dict) and _is_number(held.get("ratio")),
}
"""The forms of the values of `TrainedFlow.about` that are used, by their keys."""


def _of_stage(held: Tensors, k: int) -> Tensors:
    return {name.removeprefix(_stage(k)): value for name, value in held.items() if name.startswith(_stage(k))}
