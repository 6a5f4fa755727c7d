"""A trained flow in one file: the published layout of LightningDiT, and in its header what the model was trained on."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flowjax.data.safetensors_file import read_metadata
from flowjax.fields import ModelField, model_field
from flowjax.models.convert import convert_lightningdit, export_lightningdit
from flowjax.models.lightningdit import LightningDiT
from flowjax.path import Path, path_by_name

FILE = "model.safetensors"
_KEY = "flowjax"


@dataclasses.dataclass(frozen=True)
class TrainedFlow:
    """A model, and what is known of it.

    Attributes:
      source: where it was read.
      about: plain JSON values. `experiments.train` writes `config`, `dataset`, `step`, `path`, `image_shape`, `value_range`,
        `class_names`, `normalization` and, when it has measured it, `frechet`; a published checkpoint says nothing.
    """

    model: LightningDiT
    source: pathlib.Path
    about: Mapping[str, Any]

    @property
    def field(self) -> ModelField:
        """Its velocity field."""
        return model_field(self.model, self.num_classes)

    @property
    def num_classes(self) -> int:
        """Labels it was trained on; 0: none."""
        return self.model.shape.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its samples."""
        return self.model.shape.image_shape

    @property
    def path(self) -> Path:
        """The path between noise and data; rectified flow where nothing is said, as published."""
        return path_by_name(self.about.get("path", "rectified_flow"))

    @property
    def frechet_ratio(self) -> float | None:
        """Fréchet distance of its samples from held-out data, over that of training data; None where it was not measured."""
        found = self.about.get("frechet")
        return None if not found else float(found["ratio"])

    def check_shape(self, shape: tuple[int, ...], what: str) -> None:
        """Raise a ValueError unless samples of this shape are what the model makes."""
        if tuple(shape) != self.image_shape:
            raise ValueError(f"{self.source}: makes samples of shape {self.image_shape}, and {what} has {tuple(shape)}: expected the same")


def save_trained(model: LightningDiT, path: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Write a model, and what is to be known of it, in plain JSON values. A file that is there is replaced in one move."""
    export_lightningdit(model, path, metadata={_KEY: json.dumps({**about, "image_shape": list(model.shape.image_shape)})})


def load_trained(path: str | os.PathLike) -> TrainedFlow:
    """The model of a folder of `experiments.train`, of a file that it wrote, or of a published checkpoint.

    Raises:
      FileNotFoundError: no such file; a folder without a model.
      ValueError: a file that is no LightningDiT.
    """
    found = pathlib.Path(path).expanduser()
    if found.is_dir():
        if not (found / FILE).is_file():
            raise FileNotFoundError(f"{found} holds no {FILE}: give a folder that experiments.train wrote, or a checkpoint file")
        found = found / FILE
    elif not found.is_file():
        raise FileNotFoundError(f"{found}: no such file; give a folder of experiments.train, or a .safetensors or .pt checkpoint")
    about: dict[str, Any] = {}
    if found.suffix == ".safetensors":
        try:
            about = json.loads(read_metadata(found).get(_KEY, "{}"))
        except ValueError as error:
            raise ValueError(f"{found}: what it says of itself cannot be read ({error})") from error
    shape = about.get("image_shape")
    return TrainedFlow(convert_lightningdit(found, image_shape=None if shape is None else tuple(shape)), found, about)
