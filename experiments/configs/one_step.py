"""Presets of `python -m experiments.one_step`.

preset          command                                                                              two CPU cores
digits          python -m experiments.one_step                                                       30 s, and 2 min of training
fashion_mnist   ... --config=experiments/configs/one_step.py:fashion_mnist                           3 min, and 50 min of training
                ... :fashion_mnist --config.model.path=runs/train                                    with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS   (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = flow_config(preset)
    config.num_samples = 250
    config.num_steps = 50
    config.solver = "euler"  # or heun, midpoint, dopri5
    config.level = 0.9  # the share at which layout, or details, count as settled
    config.batch_size = 250
    config.show = 3  # samples in each picture
    config.seed = 0
    return config
