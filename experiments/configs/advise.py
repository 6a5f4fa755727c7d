"""Presets of `python -m experiments.advise`.

    preset         command                                                                     two CPU cores   expect
    digits         python -m experiments.advise                                                12 s            t* = 0.52
    fashion_mnist  ... --config=experiments/configs/advise.py:fashion_mnist                    45 s            t* = 0.29

`--config.data.path=FILE_OR_FOLDER` looks at yours; `--config.for=diffusers` tells the advice in one framework's units.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config(preset)
    config.by_class = True  # for a model that is told the class, where the data have labels
    config.path = "rectified_flow"  # or cosine, variance_preserving
    config.num_queries = 128  # of the measurement
    config.num_steps = 50  # of the sampling grid in the picture, and where a framework counts its guidance interval in steps
    # In whose units the advice is told: diffusers, sd3, flux, lightningdit, ddt, sit, rae, repa, jit, edm, comfyui. All of them unless one
    # is named: who does not know the flag finds their own framework in the table.
    config.for_ = "all"
    config.seed = 0
    return config
