"""Presets of `python -m experiments.analytic_fields`.

preset          command                                                                              two CPU cores
digits          python -m experiments.analytic_fields                                                about 10 min, training included
                python -m experiments.analytic_fields --config.model.path=runs/train                 1 min
fashion_mnist   ... --config=experiments/configs/analytic_fields.py:fashion_mnist                    training: 45 min (not run)
                ... :fashion_mnist --config.model.path=runs/train                                    4 fields, 64 queries: 7 min
imagenet_vavae  ... :imagenet_vavae --config.model.path=CHECKPOINT --config.data.path=FOLDER_OF_SHARDS \\
                    --config.heldout=FOLDER_OF_SHARDS                                                (accelerators; not run)
"""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    config = flow_config(preset)
    config.heldout = ""  # a file or folder of data that the model never saw; "": those that its checkpoint names
    # Besides the oracle: gaussian, smoothed=NOISE, patch=SIZE (at its own place), anywhere=SIZE (at every place), pca_local=THRESHOLD.
    config.fields = ("gaussian", "smoothed=0.3", "patch=3", "patch=5", "pca_local=0.02")
    config.size = ""  # of the models that are trained here; "": as model.preset says
    config.seeds = (0, 1) if preset == "digits" else (0,)  # of those: of the split of the data, the first weights, batches and noise
    # What else is trained to see whether the place moves at which the oracle stops explaining: each changes one thing of the first model.
    config.vary = ConfigDict({"n": (), "size": (), "steps": ()})  # training samples, SIZE/PATCH, steps
    if preset == "digits":
        config.vary.update(n=(180,), size=("Na/2",), steps=(600,))
    if preset == "fashion_mnist":
        config.fields = ("gaussian", "smoothed=0.3", "patch=5", "patch=9", "pca_local=0.02")
    if preset == "imagenet_vavae":
        config.fields = ("gaussian", "smoothed=0.3", "patch=3", "patch=5")
    config.margin = 0.05  # of the variance: so much more explained by another field, and the oracle no longer explains the model
    config.num_queries = 128  # of training samples, and of held-out ones
    config.num_t = 20
    config.show = 2  # held-out queries in the picture
    config.seed = 0
    return config
