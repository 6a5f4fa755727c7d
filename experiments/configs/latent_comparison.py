"""Presets of `python -m experiments.latent_comparison`.

preset          command                                                                              two CPU cores
digits          python -m experiments.latent_comparison                                              4 min, training included
fashion_mnist   ... --config=experiments/configs/latent_comparison.py:fashion_mnist                  hours, training included
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
    config.spaces = ("vavae=", "sdvae=") if imagenet else ("pixels", "pca", "plain", "aligned")
    config.smooth, config.wavy = ("vavae", "sdvae") if imagenet else ("aligned", "plain")  # as the paper has it
    config.unnormalized, config.multiplier = ("sdvae",) if imagenet else (), 0.18215  # of yours, those of SD-VAE's convention
    config.flips = imagenet  # of yours: the mirror images too
    config.data = data_config("" if imagenet else preset)  # images
    config.model = model_config("imagenet_vavae_b1" if imagenet else preset)
    del config.model.path
    # Of the models trained here. A Na/4 of Fashion-MNIST's pixels has a Fréchet ratio of 17 after 6,000 steps: too weak to conclude from.
    config.size = "B" if imagenet else "Mi" if fashion else "Na"
    config.patch = 1  # of theirs, in latents
    config.pixel_patch = 4 if fashion else 2  # and in pixels: as many tokens as the latents have
    # Latents of the linear autoencoder and of both others: how much smaller than images, how many channels; steps of training.
    config.autoencoder = ConfigDict({"factor": 4 if fashion else 2, "channels": 4 if fashion else 2, "steps": 3000 if fashion else 600})
    config.num_queries = 1024
    config.num_t = 48
    config.seed = 0
    return config
