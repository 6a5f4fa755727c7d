"""Presets of `python -m experiments.memorization_by_timestep`.

preset          command                                                                              two CPU cores
digits          python -m experiments.memorization_by_timestep                                       30 s, and 2 min of training
fashion_mnist   ... --config=experiments/configs/memorization_by_timestep.py:fashion_mnist           4 min, and 50 min of training
                ... :fashion_mnist --config.model.path=runs/train                                    with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS \\
                    --config.heldout=FOLDER_OF_SHARDS                                                (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = flow_config(preset)
    config.heldout = ""  # a file or folder of data that the model never saw; "": those that its checkpoint says were held out
    config.num_queries = 512  # of training samples, and of unseen ones
    config.num_t = 20
    config.seed = 0
    return config
