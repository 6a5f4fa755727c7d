"""The spaces in which samples are compared with training data: their values, or features of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from flowjax import data
from flowjax.data.formats.pixels import to_bytes
from flowjax.metrics.copying import pooled, pooling
from flowjax.metrics.neighbours import Rows

Values = Float[np.ndarray, "B *shape"]


class Space(NamedTuple):
    """Where distances are measured."""

    name: str
    training: Rows
    of: Callable[[Values], Float[np.ndarray, "B F"]] | None
    """Coordinates of samples; None: they are given as arrays."""


def space_of(block: ConfigDict, records: data.Records, kept: Int[np.ndarray, " N"], seed: int) -> Space:
    """The space that a `features` block names.

    Args:
      kept: the rows of the records that are the training set.

    Raises:
      FileNotFoundError, ValueError: as what reads the files; a classifier of data without labels; features of other than `kept`.
    """
    if block.kind == "":
        sides = pooling(records.shape)
        of: Callable[[Values], Any] = functools.partial(pooled, sides=sides)
        read = lambda index: of(records.normalization(records.read(kept[index])))  # noqa: E731
        return Space(sides.words, Rows(len(kept), len(read(np.zeros(1, np.int64))[0]), read), of)
    if block.kind == "arrays":
        features = feature_array(block.training, len(kept), "training")
        return Space(f"features of {block.training}", Rows.of(features), None)
    value_range = records.value_range or (-1.0, 1.0)
    if block.kind == "classifier":
        from experiments.common.evaluation import features_of, train_classifier
        from experiments.configs import train as presets
        from flowjax.training.sharding import make_mesh

        config = presets.get_config("classifier")
        config.seed, config.evaluation.classifier_steps = seed, block.classifier_steps
        frozen = train_classifier(config, records.load(kept), make_mesh(1, 1))
        of = functools.partial(features_of, frozen)
        name = "features of a classifier of the data"
    else:
        from flowjax.metrics.inception import InceptionFeatures

        inception = InceptionFeatures(block.kind)
        of = lambda x: inception(to_bytes(x, value_range))  # noqa: E731
        name = f"Inception features ({block.kind})"
    parts = np.array_split(kept, -(-len(kept) // 1024))
    features = np.concatenate([of(records.normalization(records.read(part))) for part in parts])
    return Space(name, Rows.of(features), of)


def feature_array(path: str, count: int, key: str) -> Float[np.ndarray, "N F"]:
    """Features of so many samples from a file.

    Raises:
      FileNotFoundError, ValueError: as `flowjax.data.sources.arrays`; no file; features of another number of samples.
    """
    if not path:
        raise ValueError(f"features.kind = 'arrays': set --config.features.{key}=FILE, an array with a row for each of the {key}")
    found = data.load("arrays", path=path, normalize="none", label_array="none").data
    if len(found) != count:
        raise ValueError(f"features.{key}={path} holds {len(found):,} rows, and there are {count:,} {key}: expected one for each")
    return found.reshape(count, -1).astype(np.float32)
