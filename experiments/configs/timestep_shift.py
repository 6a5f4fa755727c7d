"""Presets of `python -m experiments.timestep_shift`.

preset          command                                                                              two CPU cores
digits          python -m experiments.timestep_shift                                                 1.5 min, and 2 min of training
fashion_mnist   ... --config=experiments/configs/timestep_shift.py:fashion_mnist                     10 min, and 50 min of training
                ... :fashion_mnist --config.model.path=runs/train                                    with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS   (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.scores import scores_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = scores_config(preset)
    config.shifts = (0.1, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)  # and 1, and what is advised
    config.num_steps = (50,) if preset == "imagenet_vavae" else (10, 25)  # numbers of steps, each a series of its own
    return config
