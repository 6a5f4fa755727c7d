"""Folders as `experiments.train` leaves them, of models that were never trained, for what takes a trained one."""

import csv
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.configs import train as presets
from flowjax.models import Architecture, LightningDiT
from flowjax.models.trained import FILE, save_trained
from flowjax.runtime.strict_json import plain


def untrained(depth: int = 1, shape: tuple[int, int, int] = (8, 8, 1)) -> LightningDiT:
    """A model whose last layer is not all 0."""
    model = LightningDiT(Architecture(shape, 4, depth, 16, 2, num_classes=10), rngs=nnx.Rngs(depth))
    last = model.final_layer.linear.weight
    last.set_value(jax.random.normal(jax.random.key(depth), last.shape, jnp.float32) / 8)
    return model


def leave(folder: pathlib.Path, model: LightningDiT, **known: Any) -> pathlib.Path:
    """Save it as trained on digits, or on what is `known` of it; returns the folder."""
    about = {
        "config": presets.get_config("digits").to_dict(),
        "dataset": "digits",
        "path": "rectified_flow",
        "value_range": (-1.0, 1.0),
        "frechet": {"ratio": 2.5},
    }
    folder.mkdir(exist_ok=True)
    save_trained(model, folder / FILE, plain(about | known))
    return folder


SCORED = ("--config.num_samples=32", "--config.batch_size=32", "--config.quality.classifier_steps=5")
"""Few samples, scored by features of a classifier that is hardly trained."""


def table(file: pathlib.Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def summary(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "summary.json").read_text())
