"""Presets of `python -m experiments.capacity_swap`.

preset          command                                                                              two CPU cores
digits          python -m experiments.capacity_swap                                                  8 min, training included
fashion_mnist   ... --config=experiments/configs/capacity_swap.py:fashion_mnist                      hours, training included
imagenet_vavae  ... :imagenet_vavae --config.small.path=B.pt --config.large.path=XL.pt \\
                    --config.data.path=FOLDER_OF_SHARDS                                              (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.scores import scores_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = scores_config(preset)
    small, large = {"fashion_mnist": ("Na/4", "Mi/4"), "imagenet_vavae": ("B/1", "XL/1")}.get(preset, ("Na/2", "Mi/2"))
    # path: a checkpoint of all t; factory, settings: a model of your own, as `model` has them elsewhere; neither: trained here, as `model`
    # says, of this size.
    config.small = ConfigDict({"path": "", "factory": "", "settings": "", "size": small})
    config.large = ConfigDict({"path": "", "factory": "", "settings": "", "size": large})
    del config.model.path, config.model.factory, config.model.settings
    config.specialists = preset != "imagenet_vavae"  # train one for each stage, too
    config.splits = (0.1, 0.2)  # the paper's; and where the data turn
    config.num_steps = (25,) if preset == "imagenet_vavae" else (25, 10)  # in each stage; all but the first at the turning point only
    return config
