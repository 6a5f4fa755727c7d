"""Presets of `python -m experiments.sample`.

preset         command                                                                        two CPU cores
digits         python -m experiments.sample                                                   40 s, and 2 min 15 s of training
fashion_mnist  ... --config=experiments/configs/sample.py:fashion_mnist                       under an hour of training first
               ... --config.model.path=runs/train                                             with a model that is there: seconds
imagenet       ... :imagenet --config.model.path=CHECKPOINT --config.num_samples=50000        (accelerators)
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among
from experiments.configs.model import guide_config, model_config

PRESETS = ("digits", "fashion_mnist", "imagenet")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.model = model_config("imagenet_vavae_b1" if preset == "imagenet" else preset)
    config.num_samples = 1000
    config.labels = "equal"  # every class in turn; random: drawn; or classes: 0,3,7
    config.num_steps = 250 if preset == "imagenet" else 50
    config.shift = 1.0  # timestep shift s of the grid; below 1 more of the steps lie near noise
    config.solver = "euler"  # or heun, midpoint; dopri5 chooses its own steps
    config.tolerance = 1e-5  # of dopri5
    # Noise that is added and removed on the way, by Euler-Maruyama; its diffusion coefficient: constant, sigma, linear, decreasing or
    # increasing_decreasing, times a scale; "": none.
    config.diffusion, config.diffusion_scale = "", 1.0
    config.guidance = ConfigDict(
        {
            "scale": 1.0,  # 1: none
            "interval": (0.0, 1.0),  # in `coordinate`
            "coordinate": "t",  # or sigma (σ/α), log_snr
            "channels": 0,  # how many of the first channels are guided; 0: all. LightningDiT's own sampler: 3
        }
    )
    config.guide = guide_config()  # a weaker model: guidance.scale and interval are then those of autoguidance, of all channels
    config.decoder = ""  # of latents: a folder of experiments.train's autoencoder, or of encode_latents
    # How good the samples are. features: classifier (of the model's own data; never to be called FID), or a file of Inception's weights as
    # torch-fidelity publishes them (extra `inception`); "": not measured. reference: an .npz with mu and sigma; "": the data.
    config.quality = ConfigDict({"features": "", "reference": "", "classifier_steps": 300})
    config.data = data_config()  # to compare with; what the model was trained on, where nothing is given
    config.batch_size = 100
    config.grid = 100  # samples shown
    config.seed = 0
    return config
