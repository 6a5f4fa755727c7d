"""Presets of `python -m experiments.inspect_data`.

    preset         command                                                                     two CPU cores   expect
    digits         python -m experiments.inspect_data                                          7 s             no warning
    fashion_mnist  ... --config=experiments/configs/inspect_data.py:fashion_mnist              10 s            no warning (once prepared)

`--config.data.path=FILE_OR_FOLDER` inspects yours.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config(preset)
    config.max_compared = 20_000  # samples of the spectrum, and among which neighbours are searched
    config.num_queries = 512  # samples whose nearest neighbour is searched
    config.max_grouped = 100_000  # samples up to which groups of near-duplicates are searched; 0: never
    config.strip_samples = 10  # shown, with the nearest pairs
    config.seed = 0
    return config
