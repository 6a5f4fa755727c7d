"""Presets of `python -m experiments.encode_latents`.

    preset         command                                                                          two CPU cores   expect
    digits         python -m experiments.encode_latents                                             4 s             4 x 4 x 2, 16.7 dB
    fashion_mnist  ... --config=experiments/configs/encode_latents.py:fashion_mnist                 5 s             7 x 7 x 4, 20.0 dB
    folder         ... --config=experiments/configs/encode_latents.py:folder --config.data.path=DIR  as N            yours

`--config.encoder.factory=MODULE:FUNCTION` takes an encoder of your own: `docs/data.md`. It imports MODULE and calls FUNCTION, and so runs
what you name; it is taken from the command line and the configuration file only, never from data or a checkpoint.
"""

from ml_collections import ConfigDict

from experiments.configs.data import data_config, preset_among

PRESETS = ("digits", "fashion_mnist", "folder")


def get_config(preset: str = "digits") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.data = data_config("" if preset == "folder" else preset)
    if preset == "folder":
        config.data.resolution = 256
        config.data.cache_dir = "none"  # each image is read once or twice
    config.encoder = ConfigDict(
        {
            "factory": "",  # MODULE:FUNCTION that makes an encoder of your own, and is run; "": the linear one
            "settings": "",  # what it is given beside the data, as JSON, '{"checkpoint": "vae.safetensors"}'
            "patch": {"digits": 2, "fashion_mnist": 4, "folder": 16}[preset],  # linear: side of a patch
            "channels": {"digits": 2, "fashion_mnist": 4, "folder": 32}[preset],  # linear: numbers per patch
            "max_samples": 10_000,  # linear: images that it is fitted on
        }
    )
    config.out = ""  # where the shards go; "": latents/NAME, of the data
    config.flips = preset == "folder"  # encode the mirror images too
    config.dtype = "float32"  # or float16, bfloat16
    config.shard_size = 10_000
    config.batch_size = 256
    config.process_index, config.process_count = 0, 1  # for several machines: each its own index, 0 last
    config.strip_samples = 8  # images shown with their reconstructions
    config.seed = 0
    return config
