"""The `model` block of every configuration that samples from a trained model."""

from ml_collections import ConfigDict


def model_config(preset: str = "digits") -> ConfigDict:
    """The block with its defaults."""
    return ConfigDict(
        {
            "path": "",  # a folder of experiments.train, or a .safetensors or .pt checkpoint; "": trained here, once
            "preset": preset,  # of experiments/configs/train.py: what is trained where there is no path
            "steps": 0,  # of that training; 0: as the preset says
            "measure": True,  # how good the trained one is; False saves a minute, and a verdict then says that it is not known
        }
    )
