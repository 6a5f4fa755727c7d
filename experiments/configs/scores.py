"""The keys of every configuration whose settings are scored by the Fréchet distance of samples, on seeds that they share."""

from ml_collections import ConfigDict

from experiments.configs.data import data_config
from experiments.configs.model import model_config


def scores_config(preset: str) -> ConfigDict:
    """Their defaults."""
    imagenet = preset == "imagenet_vavae"
    config = ConfigDict()
    config.model = model_config("imagenet_vavae_b1" if imagenet else preset)
    config.data = data_config()  # what the model was trained on, where nothing is given
    if imagenet:
        config.data.update(source="latents", flips=True)
    # features: classifier (of the model's own data, latents among them; never to be called FID), or, for models of images, a file of
    # Inception's weights; reference: an .npz with mu and sigma, "" for held-out data.
    config.quality = ConfigDict({"features": "classifier", "reference": "", "classifier_steps": 300})
    config.num_samples = 50_000 if imagenet else 500  # of each seed
    config.num_seeds = 3  # at least
    config.solver = "euler"  # or heun, midpoint
    config.batch_size = 250
    config.seed = 0
    return config
