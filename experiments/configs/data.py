"""The `data` block, the same in every configuration: what to read, and how. `docs/data.md` has a command for each source."""

import difflib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict


def data_config(source: str = "", **settings: Any) -> ConfigDict:
    """The block with its defaults; `settings` takes the place of some."""
    config = ConfigDict(
        {
            # digits, gaussian, arrays, array_folder, images, latents, repa, table, webdataset, or a TFDS name; "": what lies at path
            "source": source,
            "path": "",  # your file or folder
            "labels": "",  # .npy, .npz, .safetensors, .txt or .csv with the classes [N]; images: names, of the files
            "array": "",  # the array, column (x,y,z: several) or ending in a tar that holds the samples; "": a usual one
            "label_array": "",  # the array, column, ending or JSON key that holds the labels; "": a usual one; none: no labels
            "normalize": "auto",  # auto: uint8 to [-1, 1], latents by their statistics, others as they are; none; arrays: 0-255, 0-1
            "layout": "",  # channels_first: samples are stored as [C, H, W]; "": as they are
            "stats": "",  # latents: .pt, .npz or .safetensors with mean and std; "": the file beside them, or computed
            "multiplier": 0.0,  # latents: what normalised values are multiplied by; 0: the convention of their kind
            "split": "",  # TFDS, tables: train, test, ...; TFDS: train[:10%]; "": train
            "data_dir": "",  # TFDS: where data sets are prepared; "": ~/tensorflow_datasets
            "manual_dir": "",  # TFDS: where the files lie that cannot be downloaded
            "resolution": 0,  # images: the side of the square that they are resized and cropped to; 0: as they are
            "cache_dir": "",  # images: where decoded ones are kept; "": ~/.cache/flowjax; none: nowhere
            "classes": (),  # only these labels
            "max_samples": 0,  # as many at most, at random; 0: all
            "flips": False,  # the mirror images too: 2N samples; in training: each fetched sample mirrored or not, at random
            "noise_scale": 1.0,  # c of a model trained on α x_1 + c σ x_0, as JiT is: samples are divided by it, t is the model's own
            "dtype": "float32",  # of the samples in memory: float32 or bfloat16
        }
    )
    config.update(settings)
    return config


def preset_among(preset: str, presets: Sequence[str]) -> None:
    """A ValueError, with the nearest name, if there is no such preset."""
    if preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=1)
        raise ValueError(
            f"unknown preset {preset!r}" + (f" (did you mean {near[0]!r}?)" if near else "") + f"; there are {', '.join(presets)}"
        )
