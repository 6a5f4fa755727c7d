"""Presets of `python -m experiments.reproduce`.

preset          command                                                                              two CPU cores
digits          python -m experiments.reproduce                                                      24 min
fashion_mnist   ... --config=experiments/configs/reproduce.py:fashion_mnist                          hours; model included
                ... :fashion_mnist --config.model=runs/train                                         with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model=CHECKPOINT --config.data=FOLDER_OF_SHARDS         (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.data import preset_among
from experiments.configs.model import PRESETS


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.preset = preset  # of every experiment
    config.model = ""  # a folder of experiments.train, or a checkpoint; "": trained first
    config.data = ""  # latents, for imagenet_vavae
    config.only = ()  # names of experiments, to run and report these alone; (): all
    config.seed = 0  # of the report: every experiment has its own
    return config
