"""Presets of `python -m experiments.latent_comparison`.

preset          command                                                                              two CPU cores
digits          python -m experiments.latent_comparison                                              4 min, training included
fashion_mnist   ... --config=experiments/configs/latent_comparison.py:fashion_mnist                  about 25 min of one core
imagenet        ... :imagenet --config.spaces="('vavae=SHARDS@CHECKPOINT', 'sdvae=SHARDS@CHECKPOINT')"   (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among
from experiments.configs.model import model_config

PRESETS = ("digits", "fashion_mnist", "imagenet")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    imagenet, fashion = preset == "imagenet", preset == "fashion_mnist"
    # pixels, pca, plain, aligned: made of `data`; NAME=LATENTS: yours, a model is trained on them; NAME=LATENTS@CHECKPOINT: with its model.
    # Of Fashion-MNIST the two that the finding compares: a model of its pixels takes as long as both.
    config.spaces = ("vavae=", "sdvae=") if imagenet else ("plain", "aligned") if fashion else ("pixels", "pca", "plain", "aligned")
    config.smooth, config.wavy = ("vavae", "sdvae") if imagenet else ("aligned", "plain")  # as the paper has it
    config.unnormalized, config.multiplier = ("sdvae",) if imagenet else (), 0.18215  # of yours, those of SD-VAE's convention
    config.flips = imagenet  # of yours: the mirror images too
    config.data = data_config("" if imagenet else preset)  # images
    config.model = model_config("imagenet_vavae_b1" if imagenet else preset)
    del config.model.path  # factory: of the spaces that name no checkpoint, and is told which one in `space`
    config.size = "B" if imagenet else "Mi" if fashion else "Na"
    config.patch = 1  # of theirs, in latents
    config.pixel_patch = 4 if fashion else 2  # and in pixels
    # Latents of the linear autoencoder and of both others: how much smaller than images, how many channels; width and steps of the others.
    config.autoencoder = ConfigDict({"factor": 2, "channels": 2, "width": 32, "steps": 600})
    if fashion:
        config.autoencoder.update(factor=8, channels=8, width=8, steps=1000)  # 4 x 4 x 8: as many tokens as digits have
        config.model.steps = 2000
    config.num_queries = 1024
    config.num_t = 48
    config.seed = 0
    return config
