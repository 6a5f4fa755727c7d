"""Presets of `python -m experiments.bench_training`.

preset     command                               two CPU cores   expect
default    python -m experiments.bench_training   3 minutes       0.91 of compiled PyTorch
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration; every key can be set with `--config.KEY=VALUE`."""
    config = ConfigDict()
    config.image_shape = (28, 28, 1)
    config.model = ConfigDict({"patch": 4, "depth": 6, "width": 256, "heads": 4, "num_classes": 10})  # 7.4M parameters, 49 tokens
    config.batch_size = 64
    config.dtype = "float32"  # of matrix products; PyTorch's too
    config.repeats = 10  # turns of each, of three timed steps
    config.compile_torch = True  # time torch.compile too: a minute to compile
    config.seed = 0
    return config
