"""Trained flows from the `model` block of a configuration, and the data that they were trained on."""

import inspect
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import train
from experiments.common import app
from experiments.common.data import load_beside, load_data, open_data
from experiments.common.factories import checked_settings, json_settings, named_function
from experiments.configs import train as presets
from experiments.configs.data import data_config
from flowjax import data, stages
from flowjax.fields import measure_direction
from flowjax.models.flow import ExternalFlow, Flow
from flowjax.models.trained import load_trained
from flowjax.oracle import Oracle
from flowjax.reporting.workdir import WorkDir
from flowjax.stages import TurningPoint

MODELS = "models"
"""The live folder of a run in which models are trained once, and kept."""
CELLS = "cells"
"""The live folder of a run for results measured on models: `flowjax.runtime.result_store`."""

STRONG_ENOUGH = 3.0
"""The largest ratio of Fréchet distances of a model from which anything can be concluded: see `experiments.train`."""


NOT_MEASURED = {"frechet_samples": 0, "oracle": False}
"""The `evaluation` of models that are trained on the way, and of which nothing is concluded alone."""


def obtain(block: ConfigDict, workdir: WorkDir) -> Flow:
    """The model that a block names or a function of the user's makes; trained in the workdir where there is neither.

    Raises:
      FileNotFoundError, ValueError: as `load_trained`; as `made`; as `experiments.train`.
    """
    if block.factory:
        return made(block)
    if block.path:
        return load_trained(block.path)
    return load_trained(train_within(training_config(block), workdir, block.preset))


def made(block: ConfigDict, key: str = "model", **further: Any) -> Flow:
    """The model of the user's factory: `factory(**settings)`, a Flow.

    Args:
      key: of the block in the configuration, for messages.
      further: settings besides.

    Raises:
      ValueError: a factory or settings that are none, both a factory and a path, or what is made is no flow.
    """
    return all_made(block, key, **further)[0]


def all_made(block: ConfigDict, key: str = "model", **further: Any) -> list[Flow]:
    """The models of the user's factory, one for each object if `settings` is a JSON list of them. Raises as `made`."""
    if block.get("path"):
        raise ValueError(f"config.{key}.path={block.path!r} and config.{key}.factory={block.factory!r}: give one of them")
    told = json_settings(f"{key}.settings", block.settings)
    function = named_function(f"{key}.factory", block.factory)
    flows: list[Flow] = []
    for one in told if isinstance(told, list) and told else [told]:
        settings = checked_settings(f"{key}.settings", one) | further
        try:
            flow = function(**settings)
        except TypeError as error:
            raise ValueError(f"config.{key}.settings={block.settings!r}: {block.factory} cannot be called with it ({error})") from error
        if not isinstance(flow, Flow):
            raise ValueError(
                f"config.{key}.factory={block.factory!r}: made a {type(flow).__name__}; expected a "
                "flowjax.models.ExternalFlow(external_field(...), image_shape=(H, W, C)), see docs/your-model.md"
            )
        if isinstance(flow, ExternalFlow):
            code = pathlib.Path(inspect.getfile(inspect.unwrap(function))).read_bytes()
            flow = flow.asked_for(block.factory, settings, code)
        flows.append(flow)
    return flows


def guide_of(block: ConfigDict, flow: Flow) -> Flow | None:
    """The weaker model that a `guide` block names, to guide a flow by; None where it names none.

    Raises:
      FileNotFoundError, ValueError: as `obtain`; a model of other samples, classes or another path than the flow.
    """
    if not block.factory and not block.path:
        return None
    guide = made(block, "guide") if block.factory else load_trained(block.path)
    flow.check_shape(guide.image_shape, str(guide.source))
    for what, one, two in (("classes", flow.num_classes, guide.num_classes), ("path", flow.path, guide.path)):
        if one != two:
            raise ValueError(f"config.guide: {flow.source} and {guide.source} differ in {what}, {one} and {two}: expected models alike")
    return guide


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


def check_alike(flows: Sequence[Flow]) -> None:
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


def own_data(flow: Flow, block: ConfigDict) -> tuple[data.DataSet, data.DataSet | None]:
    """The samples that a flow was trained on and those held out from it; or what a `data` block names, all for training.

    Raises:
      ValueError: a checkpoint that does not say what it was trained on, and no data given; data of another shape, or of fewer classes.
    """
    about = flow.about.get("config")
    if isinstance(flow, ExternalFlow) and block.noise_scale != 1:
        raise ValueError(
            f"config.data.noise_scale={block.noise_scale:g}: a model of your own says so itself, external_field(..., "
            f"noise_scale={block.noise_scale:g}), and its field is that of the data as they are; leave it at 1"
        )
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
    if isinstance(flow, ExternalFlow):
        _check_direction(flow, found[0])
    return found


def training_and_unseen(flow: Flow, config: ConfigDict) -> tuple[data.DataSet, data.DataSet]:
    """The samples that a flow was trained on, and samples that it never saw: those at `config.heldout`, or those that its checkpoint names.

    Raises:
      ValueError: as `own_data`; neither of them, or `heldout` without the training data.
    """
    training, unseen = own_data(flow, config.data)
    if config.heldout:
        if not (config.data.source or config.data.path):
            raise ValueError(f"heldout = {config.heldout!r}: give the training data too, --config.data.path=FILE_OR_FOLDER")
        unseen = load_beside(config.data, open_data(config.data), config.heldout)
        flow.check_shape(unseen.shape, unseen.name)
    if unseen is None:
        raise ValueError(f"{flow.source} does not say which samples it never saw: give some, --config.heldout=FILE_OR_FOLDER")
    return training, unseen


_CHECKED: set[str] = set()
"""Fingerprints of the models of this process whose direction was measured."""


def _check_direction(flow: ExternalFlow, training: data.DataSet) -> None:
    """Refuse a model whose time or prediction differs from its factory's settings; warn of one that no setting fits."""
    if flow.digest in _CHECKED:
        return
    _CHECKED.add(flow.digest)
    found = measure_direction(flow.field, training.data, training.labels if told_classes(flow, training) else None)
    if found.remedy is not None:
        raise ValueError(f"{flow.source}: {found.sentence}")
    if found.wrong:
        print(f"{flow.source}: {found.sentence}", file=sys.stderr, flush=True)


def _told_block(flow: Flow, told: Mapping[str, Any]) -> ConfigDict:
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


def told_classes(flow: Flow, training: data.DataSet) -> bool:
    """Whether a flow is told the classes of its samples, and so is their oracle."""
    return bool(flow.num_classes) and training.labels is not None


def own_oracle(flow: Flow, training: data.DataSet) -> Oracle:
    """The oracle of what a flow was trained on, by class where the flow is told classes."""
    return Oracle(training.data, training.labels if told_classes(flow, training) else None, path=flow.path)


def own_turning_point(oracle: Oracle, seed: int) -> TurningPoint:
    """The turning point of an oracle, measured; by class if the oracle has classes."""
    return stages.measure_turning_point(oracle, label="own" if oracle.conditional else None, seed=seed)


def strength(flow: Flow) -> dict[str, Any]:
    """Whether the model is good enough to conclude from, for a summary."""
    ratio = flow.frechet_ratio
    return {"frechet_ratio": ratio, "at_most": STRONG_ENOUGH, "enough": None if ratio is None else ratio <= STRONG_ENOUGH}


def about_model(flow: Flow) -> dict[str, Any]:
    """Facts about a model, for a summary."""
    return {"source": flow.source, "size": dict(flow.size), **strength(flow)}


def about_data(training: data.DataSet) -> dict[str, Any]:
    """Facts about the training data, for a summary."""
    return {"dataset": training.name, "n": training.n, "d": training.d}
