"""Presets of `python -m experiments.loss_by_timestep`.

preset          command                                                                              two CPU cores
digits          python -m experiments.loss_by_timestep                                               8 min, training included
fashion_mnist   ... --config=experiments/configs/loss_by_timestep.py:fashion_mnist                   hours, training included
imagenet_vavae  ... :imagenet_vavae --config.checkpoints="('S.pt@80000', 'B.pt@80000', 'XL.pt@80000')" \\
                    --config.data.path=FOLDER_OF_SHARDS                                              (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = flow_config(preset)
    # model.path: the strongest of the models, where it is there already.
    # model.factory: models of your own; model.settings is then an object for one model, or a list of objects for several to compare.
    config.checkpoints = ()  # models that are there, each PATH or PATH@STEPS; (): trained here, as `model` and the next two keys say
    config.sizes = {"fashion_mnist": ("Pi/4", "Na/4", "Mi/4"), "imagenet_vavae": ("S/1", "B/1", "XL/1")}.get(
        preset, ("Pi/2", "Na/2", "Mi/2")
    )
    config.steps = {"fashion_mnist": (3500, 14_000), "imagenet_vavae": (125_000, 1_000_000)}.get(preset, (300, 1200))
    config.heldout_fraction = 0.1  # of data that a checkpoint does not split itself
    config.num_queries = 512  # of training samples, and of held-out ones
    config.num_t = 20
    config.seed = 0
    return config
