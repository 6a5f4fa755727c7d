"""Presets of `python -m experiments.audit`.

    preset         command                                                                     two CPU cores   expect
    digits         python -m experiments.audit                                                 10 s            20 planted, about 5 %
    fashion_mnist  ... --config=experiments/configs/audit.py:fashion_mnist                     20 s            50 planted, about 5 %

`--config.samples=FILE_OR_FOLDER --config.data.path=TRAINING_DATA` audits yours. Without samples the audit is tried on the data themselves:
images that are taken out of the training set stand for samples, some of them replaced by copies (`planted`).
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config(preset)  # the training set
    config.samples = ()  # a file or folder of generated samples; several, PATH@STEPS each: checkpoints
    config.heldout = ""  # a file or folder of data that were not trained on; "": training samples, each against the others, stand for them
    config.mirror = "auto"  # look for mirror images too: auto (of images), yes, no
    config.check_scale = True  # refuse samples whose mean or spread is not the data's
    config.features = ConfigDict(
        {
            # what distances are between: "" (values; images: means over small squares), classifier (trained on the data's labels),
            # arrays (the files below, in the order of the samples), or a file of Inception's weights
            "kind": "",
            "training": "",
            "samples": (),
            "heldout": "",
            "classifier_steps": 400,
        }
    )
    config.planted = ConfigDict(
        {
            "samples": 400 if preset == "digits" else 1000,  # taken out of the training set, and as many again for the baseline
            "copies": 20 if preset == "digits" else 50,  # of them replaced by copies of training samples
            "noise": 0.01,  # added to the copies, of the data's standard deviation
            "mirror": False,  # the copies are mirror images
            "jpeg": 0,  # the copies have been JPEG of this quality; 0: they have not
        }
    )
    config.num_baseline = 2000  # training samples that are looked up among the others
    config.plan = False  # say what time and memory it will take, by a part that is timed, and end
    config.show = 32  # samples shown beside their nearest
    config.seed = 0
    return config
