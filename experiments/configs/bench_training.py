"""Presets of `python -m experiments.bench_training`.

preset     command                                                                                 two CPU cores
training   python -m experiments.bench_training                                                     3 minutes
sampling   python -m experiments.bench_training --config=experiments/configs/bench_training.py:sampling   3 minutes
"""

from ml_collections import ConfigDict

from experiments.configs.data import preset_among

PRESETS = ("training", "sampling")


def get_config(preset: str = "training") -> ConfigDict:
    """The configuration of a preset; every key can be set with `--config.KEY=VALUE`."""
    preset_among(preset, PRESETS)
    config = ConfigDict()
    config.image_shape = (28, 28, 1)
    config.model = ConfigDict({"patch": 4, "depth": 6, "width": 256, "heads": 4, "num_classes": 10})  # 7.4M parameters, 49 tokens
    config.batch_size = 64
    config.dtype = "float32"  # of matrix products; PyTorch's too
    config.sampling_steps = 20 if preset == "sampling" else 0  # Euler's steps to time; 0: a training step
    config.repeats = 10  # turns of each, each timed three times
    config.compile_torch = True  # time torch.compile too: a minute to compile
    config.seed = 0
    return config
