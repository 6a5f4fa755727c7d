"""Presets of `python -m experiments.explore`.

    preset         command                                                                          two CPU cores   expect
    digits         python -m experiments.explore                                                    20 s            a page of 1 MB
    fashion_mnist  ... --config=experiments/configs/explore.py:fashion_mnist                        1 min           a page of 4 MB

`--config.data.path=FILE_OR_FOLDER` looks at yours; `--config.model.path=FOLDER` or `--config.model.factory=MODULE:FUNCTION` sets a model
beside the oracle of what it was trained on.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among
from experiments.configs.model import named_model_config

PRESETS = ("digits", "fashion_mnist")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config("" if preset == "digits" else preset)  # "": what the model was trained on, or digits
    config.model = named_model_config()  # none, unless one is given
    config.by_class = True  # for a model that is told the class, where the data have labels; with a model: as it is told
    config.path = "rectified_flow"  # or cosine, variance_preserving; with a model: its own
    config.classes = ()  # of the queries that are shown; (): all by turns
    config.num_shown = 12  # queries
    config.num_heaviest = 4  # samples shown for each, those with most of the weight
    config.t_max, config.num_t = 0.98, 50  # of the slider, from 0
    config.num_queries = 256  # of the curve and the turning point
    config.num_steps = 50  # of the sampler whose steps the shift moves
    # Whose units the shift and the interval are told in: diffusers, sd3, flux, lightningdit, ddt, sit, rae, repa, jit, edm, comfyui.
    config.for_ = "all"  # all: the page lets one choose
    config.seed = 0
    return config
