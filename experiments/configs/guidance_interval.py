"""Presets of `python -m experiments.guidance_interval`.

preset          command                                                                              two CPU cores
digits          python -m experiments.guidance_interval                                              2.5 min, and 2 min of training
fashion_mnist   ... --config=experiments/configs/guidance_interval.py:fashion_mnist                  12 min, and 50 min of training
                ... :fashion_mnist --config.model.path=runs/train                                    with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS   (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.model import guide_config
from experiments.configs.scores import scores_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = scores_config(preset)
    config.scale = 2.5  # w, on all channels
    config.guide = guide_config()  # a weaker model, to guide by in place of by class
    # Where the intervals of the map begin and end; those of the table.
    config.edges = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0) if preset == "imagenet_vavae" else (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    config.intervals = (
        (0.0, 1.0),
        (0.0, 0.1),
        (0.1, 0.2),
        (0.1, 0.3),
        (0.1, 0.5),
        (0.1, 0.6),
        (0.1, 0.7),
        (0.4, 0.5),
        (0.9, 1.0),
    )
    config.num_steps = 50 if preset == "imagenet_vavae" else 20
    return config
