"""Presets of `python -m experiments.bench_data`.

    preset         command                                                                     two CPU cores
    digits         python -m experiments.bench_data                                            9 s
    fashion_mnist  ... --config=experiments/configs/bench_data.py:fashion_mnist                10 s, once prepared

`--config.data.path=FILE_OR_FOLDER` measures yours.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config(preset)
    config.batch_size = 256
    config.seconds = 5.0  # for how long batches are drawn
    config.label_dropout = 0.1  # where the data have labels
    config.in_memory = True  # load all samples too, as an oracle does
    config.seed = 0
    return config
