"""`Flow`: a model as experiments use it, with its field, its samples' shape, and facts about it; `ExternalFlow`: other frameworks."""

import abc
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flowjax.fields import Field
from flowjax.path import Path, path_by_name


class Flow(abc.ABC):
    """A model of samples of one shape.

    Attributes:
      source: where it comes from, as messages have it.
      about: plain JSON values, as `flowjax.models.trained.TrainedFlow` lists them; none of them has to be there.
    """

    source: pathlib.Path | str
    about: Mapping[str, Any]

    @property
    @abc.abstractmethod
    def field(self) -> Field:
        """Its velocity field."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """A fingerprint, by which results for this model are stored."""

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """Labels that it was trained on; 0: none."""

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """Shape of its samples: (H, W, C) for images and latents."""

    @property
    @abc.abstractmethod
    def parameters(self) -> int | None:
        """Number of parameters; None where it is not known."""

    @property
    @abc.abstractmethod
    def size(self) -> Mapping[str, Any]:
        """Its architecture, for a summary."""

    @property
    def name(self) -> str:
        """The source without its folder."""
        return getattr(self.source, "name", str(self.source))

    @property
    def path(self) -> Path:
        """The path between noise and data; rectified flow where `about` has none, as for published models."""
        return path_by_name(self.about.get("path", "rectified_flow"))

    @property
    def frechet_ratio(self) -> float | None:
        """Fréchet distance of its samples from held-out data, over that of training data; None where it was not measured."""
        found = self.about.get("frechet")
        return None if not found else float(found["ratio"])

    def check_shape(self, shape: tuple[int, ...], what: str) -> None:
        """Raise a ValueError unless the model makes samples of this shape."""
        if tuple(shape) != self.image_shape:
            raise ValueError(f"{self.source}: makes samples of shape {self.image_shape}, and {what} has {tuple(shape)}: expected the same")


class ExternalFlow(Flow):
    """A model from elsewhere, as `--config.model.factory=MODULE:FUNCTION` makes it: docs/your-model.md.

    Args:
      field: its velocity field, mostly of `flowjax.fields.external_field`; along rectified flow.
      image_shape: of its samples, channels last.
      num_classes: labels that it was trained on, 0 to num_classes - 1; 0: none.
      value_range: least and greatest value of images, as (-1, 1): samples are then written as 8-bit images. None: latents.
      parameters: how many it has, where experiments compare models by their size.
      name: what tables and figures call it; None: as it was asked for.

    Raises:
      ValueError: a shape, a number of classes or a range that is none.
    """

    def __init__(
        self,
        field: Field,
        image_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        value_range: tuple[float, float] | None = None,
        parameters: int | None = None,
        name: str | None = None,
    ):
        if not callable(field):
            raise ValueError(f"field is a {type(field).__name__}: expected what flowjax.fields.external_field makes")
        self._field, self._shape, self._classes = field, tuple(int(side) for side in image_shape), int(num_classes)
        if not self._shape or min(self._shape) < 1:
            raise ValueError(f"image_shape = {tuple(image_shape)}: expected sides of at least 1, as (32, 32, 4), channels last")
        if self._classes < 0:
            raise ValueError(f"num_classes = {num_classes}: expected 0 for a model without labels, or more")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range = {value_range}: expected (least, greatest)")
        self._parameters, self.source = parameters, name or "a model"
        self._named = name is not None
        self.about = {} if value_range is None else {"value_range": list(value_range)}
        self._asked: Mapping[str, Any] = {}

    def asked_for(self, factory: str, settings: Mapping[str, Any], code: bytes = b"") -> "ExternalFlow":
        """The same model, made by a factory with these settings.

        Its fingerprint is of the settings, of the factory's source and of every file that the settings name. Other weights make another
        model, unless they come from a place that none of these names.
        """
        if not self._named:
            self.source = factory + (json.dumps(dict(settings), sort_keys=True) if settings else "")
        files = {value: _digest_of(value) for value in settings.values() if isinstance(value, str) and os.path.isfile(value)}
        self._asked = {"factory": factory, "settings": dict(settings), "code": hashlib.sha256(code).hexdigest(), "files": files}
        return self

    @property
    def field(self) -> Field:
        return self._field

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self._asked, str(self.source)], sort_keys=True).encode()).hexdigest()

    @property
    def num_classes(self) -> int:
        return self._classes

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def parameters(self) -> int | None:
        return self._parameters

    @property
    def size(self) -> Mapping[str, Any]:
        return {"image_shape": self._shape, "num_classes": self._classes, "parameters": self._parameters}


def _digest_of(file: str) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
