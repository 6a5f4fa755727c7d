"""From the `model` block of a configuration to a trained flow, and to the data that it was trained on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import train
from experiments.common import app
from experiments.common.data import load_data
from experiments.configs import train as presets
from experiments.configs.data import data_config
from flowjax import data, stages
from flowjax.models.trained import TrainedFlow, load_trained
from flowjax.oracle import Oracle
from flowjax.reporting.workdir import WorkDir
from flowjax.stages import TurningPoint

MODELS = "models"
"""The live folder of a run in which models are trained once, and kept."""
CELLS = "cells"
"""The live folder of a run in which what is measured on models is kept: `flowjax.runtime.result_store`."""

STRONG_ENOUGH = 3.0
"""The largest ratio of Fréchet distances of a model from which anything can be concluded: see `experiments.train`."""


NOT_MEASURED = {"frechet_samples": 0, "oracle": False}
"""The `evaluation` of models that are trained on the way, and of which nothing is concluded alone."""


def obtain(block: ConfigDict, workdir: WorkDir) -> TrainedFlow:
    """The model that a block names; trained in the workdir where it names none.

    Raises:
      FileNotFoundError, ValueError: as `load_trained`; as `experiments.train`.
    """
    if block.path:
        return load_trained(block.path)
    return load_trained(train_within(training_config(block), workdir, block.preset))


def training_config(block: ConfigDict, **changes: Any) -> ConfigDict:
    """The configuration of `experiments.train` that a block asks for."""
    config = presets.get_config(block.preset)
    if config.task != "flow":
        raise ValueError(f"model.preset = {block.preset}: expected a preset of experiments.train that trains a flow")
    if not block.measure:
        config.evaluation.update(NOT_MEASURED)
    if block.steps:
        config.steps = config.optimizer.decay_steps = block.steps
    config.update_from_flattened_dict(changes)
    return config


def train_within(config: ConfigDict, workdir: WorkDir, name: str) -> Any:
    """Train, in a folder of the workdir's that says by its name what is in it, unless that is done; returns the folder."""
    what = config.model.size if config.task == "flow" else config.task
    print(f"Training {name} ({what}, {config.steps:,} steps), or going on with it, in {workdir.live(MODELS)}", flush=True)
    return app.run_within(workdir.live(MODELS), name, config, train.run, train.LIVE)


def check_alike(flows: Sequence[TrainedFlow]) -> None:
    """Raise a ValueError unless models make the same samples, of the same data, along the same path."""
    first = flows[0]
    for other in flows[1:]:
        first.check_shape(other.image_shape, str(other.source))
        for what, one, two in (
            ("classes", first.num_classes, other.num_classes),
            ("dataset", first.about.get("dataset"), other.about.get("dataset")),
            ("path", first.path, other.path),
        ):
            if one != two:
                raise ValueError(f"{first.source} and {other.source} differ in {what}, {one} and {two}: expected models of the same data")


def own_data(flow: TrainedFlow, block: ConfigDict) -> tuple[data.DataSet, data.DataSet | None]:
    """The samples that a flow was trained on and those held out from it; or what a `data` block names, all for training.

    Raises:
      ValueError: a checkpoint that does not say what it was trained on, and no data given; data of another shape, or of fewer classes.
    """
    about = flow.about.get("config")
    if block.source or block.path:
        found: tuple[data.DataSet, data.DataSet | None] = (load_data(block), None)
    elif about is None:
        raise ValueError(f"{flow.source} does not say what it was trained on: give --config.data.path=FILE_OR_FOLDER")
    else:
        whole = load_data(_told_block(flow, about["data"]), fetch=False)
        found = whole.split(about["heldout_fraction"], about["seed"]) if about["heldout_fraction"] else (whole, None)
    flow.check_shape(found[0].shape, found[0].name)
    if flow.num_classes and (found[0].num_classes or 0) > flow.num_classes:
        raise ValueError(f"{flow.source} knows {flow.num_classes} classes, and {found[0].name} has {found[0].num_classes}")
    return found


def _told_block(flow: TrainedFlow, told: Mapping[str, Any]) -> ConfigDict:
    """The `data` block that a checkpoint says it was trained on."""
    block = data_config()
    try:
        for key, value in told.items():
            if key not in block:
                raise TypeError(f"{key} is no key of it")
            block[key] = value
    except TypeError as error:
        raise ValueError(f"{flow.source}: its data cannot be read ({error}): give --config.data.path=FILE_OR_FOLDER") from error
    return block


def told_classes(flow: TrainedFlow, training: data.DataSet) -> bool:
    """Whether a flow is told the classes of its samples, and so is their oracle."""
    return bool(flow.num_classes) and training.labels is not None


def own_oracle(flow: TrainedFlow, training: data.DataSet) -> Oracle:
    """The oracle of what a flow was trained on, by class where the flow is told classes."""
    return Oracle(training.data, training.labels if told_classes(flow, training) else None, path=flow.path)


def own_turning_point(oracle: Oracle, seed: int) -> TurningPoint:
    """Where it turns, for the classes that the flow is told."""
    return stages.measure_turning_point(oracle, label="own" if oracle.conditional else None, seed=seed)


def strength(flow: TrainedFlow) -> dict[str, Any]:
    """Whether the model is good enough to conclude from, for a summary."""
    ratio = flow.frechet_ratio
    return {"frechet_ratio": ratio, "at_most": STRONG_ENOUGH, "enough": None if ratio is None else ratio <= STRONG_ENOUGH}


def about_model(flow: TrainedFlow) -> dict[str, Any]:
    """What a summary says of a model."""
    return {"source": flow.source, "size": dataclasses.asdict(flow.model.shape), **strength(flow)}


def about_data(training: data.DataSet) -> dict[str, Any]:
    """And of what it was trained on."""
    return {"dataset": training.name, "n": training.n, "d": training.d}
