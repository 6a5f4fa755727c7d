"""The keys of every configuration whose settings are scored by the Fréchet distance of samples, on seeds that they share."""

from ml_collections import ConfigDict

from experiments.configs.model import flow_config


def scores_config(preset: str) -> ConfigDict:
    """Their defaults."""
    config = flow_config(preset)
    # features: classifier (of the model's own data, latents among them; never to be called FID), or, for models of images, a file of
    # Inception's weights; reference: an .npz with mu and sigma, "" for held-out data.
    config.quality = ConfigDict({"features": "classifier", "reference": "", "classifier_steps": 300})
    config.num_samples = 50_000 if preset == "imagenet_vavae" else 500  # of each seed
    config.num_seeds = 3  # at least
    config.solver = "euler"  # or heun, midpoint
    config.batch_size = 250
    config.seed = 0
    return config
