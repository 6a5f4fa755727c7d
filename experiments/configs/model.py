"""The `model` block of every configuration that analyses a trained model, and the `data` block that goes with it."""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist", "imagenet_vavae")
"""The blocks of a configuration that analyses a trained flow."""


def flow_config(preset: str) -> ConfigDict:
    """What such a configuration begins with: the `model`, and the `data` that it was trained on.

    Raises:
      ValueError: no such preset.
    """
    preset_among(preset, PRESETS)
    imagenet = preset == "imagenet_vavae"
    config = ConfigDict()
    config.model = model_config("imagenet_vavae_b1" if imagenet else preset)
    config.data = data_config()  # what the model was trained on, where nothing is given
    if imagenet:
        config.data.update(source="latents", flips=True)
    return config


def model_config(preset: str = "digits") -> ConfigDict:
    """The block with its defaults."""
    return ConfigDict(
        {
            "path": "",  # a folder of experiments.train, or a .safetensors or .pt checkpoint; "": trained here, once
            "factory": "",  # or MODULE:FUNCTION that makes a model of your own, of any framework, and is run: docs/your-model.md
            "settings": "",  # what that function is given, as JSON, '{"checkpoint": "model.pt"}'
            "preset": preset,  # of experiments/configs/train.py: what is trained where there is no path
            "steps": 0,  # of that training; 0: as the preset says
            "measure": True,  # how good the trained one is; False saves a minute, and a verdict then says that it is not known
        }
    )


def named_model_config() -> ConfigDict:
    """A block that names a model, or none: nothing is trained. Its keys are as those of `model`."""
    return ConfigDict({"path": "", "factory": "", "settings": ""})


def guide_config() -> ConfigDict:
    """The `guide` block: a weaker model of the same data, by which to guide in place of by class (autoguidance)."""
    return named_model_config()  # none: guidance by class
