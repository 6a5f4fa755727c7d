"""Presets of `python -m experiments.hybrid_sampling`.

preset          command                                                                              two CPU cores
digits                                                 1 min, and 2 min of training
fashion_mnist   ... --config=experiments/configs/hybrid_sampling.py:fashion_mnist                    6 min, and 50 min of training
                ... :fashion_mnist --config.model.path=runs/train                                    with a model that is there
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS   (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = flow_config(preset)
    config.start = "prior"  # what the model takes over from: prior, noise led by the oracle; heldout: held-out samples, noised to t_switch
    config.heldout = ""  # a file or folder of data that the model never saw, for start=heldout; "": those that its checkpoint names
    config.num_samples = 500  # for each t_switch, of the same noise
    config.num_steps = 50
    config.solver = "euler"  # or heun, midpoint, dopri5
    config.t_switch = ()  # the times to measure, rising, in [0, 1]; (): num_switches of them
    config.num_switches = 26  # values of t_switch, from 0, the model alone, to 1, the oracle alone; put on the grid of steps
    config.heldout_fraction = 0.1  # of data that a checkpoint does not split itself: the baseline
    config.batch_size = 250
    config.show = 8  # samples in the picture
    config.seed = 0
    return config
