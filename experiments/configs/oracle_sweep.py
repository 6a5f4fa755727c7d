"""Presets of `python -m experiments.oracle_sweep`.

    preset           command                                                                         two CPU cores   expect
    digits           python -m experiments.oracle_sweep                                              15 s            t* = 0.53
    digits_by_class  ... --config=experiments/configs/oracle_sweep.py:digits_by_class                20 s            t* = 0.52
    gaussian_grid    ... --config=experiments/configs/oracle_sweep.py:gaussian_grid                  long            predictions within 8 %
    fashion_mnist    ... --config=experiments/configs/oracle_sweep.py:fashion_mnist                  2 min           t* = 0.31
    arrays           ... --config=experiments/configs/oracle_sweep.py:arrays --config.data.path=FILE  as N and D      yours

`fashion_mnist` reads the four original files where `apt-get install dataset-fashion-mnist` puts them, or in --config.data.manual_dir.

`--config.data.path=FILE.npy` alone does the same as `arrays` for data without labels.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "digits_by_class", "fashion_mnist", "gaussian_grid", "arrays")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    if preset == "gaussian_grid":
        return _grid()
    config = ConfigDict()
    config.data = data_config({"arrays": "", "fashion_mnist": "fashion_mnist"}.get(preset, "digits"))
    # Whether each query is conditioned on its own class, where the data have labels.
    config.by_class = preset in ("digits_by_class", "arrays")
    config.path = "rectified_flow"  # or cosine, variance_preserving
    config.query = "train"  # what is noised: train, heldout, or a .npy/.npz file of clean samples
    config.heldout_fraction = 0.1  # held out of the oracle's data when query=heldout
    config.num_queries = 512 if preset == "digits_by_class" else 256
    config.t_min, config.t_max, config.num_t = 0.01, 0.99, 50
    config.strip_samples = 4  # pairs shown in the strip of images
    config.max_grouped = 100_000  # samples up to which groups of near-duplicates are looked for; 0: never
    config.explorer = False  # also write explore.html, the page of experiments.explore, and link to it
    config.seed = 0
    return config


def _grid() -> ConfigDict:
    config = ConfigDict()
    config.grid = ConfigDict({"d": (16, 64, 256, 1024, 4096), "n": (64, 256, 1024, 4096, 16384), "draws": 8, "num_t": 13})
    config.path = "rectified_flow"
    config.num_queries = 256  # for each draw
    config.seed = 0
    return config
