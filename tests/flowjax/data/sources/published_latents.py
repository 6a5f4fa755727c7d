"""A published layout of latents, written by the safetensors library and NumPy alone."""

import pathlib
import shutil

import numpy as np
from safetensors.numpy import save_file

STATS_PT = pathlib.Path(__file__).parents[3] / "files" / "latents_stats.pt"  # of 32 channels, written by PyTorch
SIZES = (5, 3, 4)


def arrays(channels: int = 32, dtype: type = np.float32) -> list[dict[str, np.ndarray]]:
    """Shards as LightningDiT's extraction leaves them."""
    rng = np.random.default_rng(0)
    return [
        {
            "latents": (rng.standard_normal((n, channels, 2, 3)) * 3 + 1).astype(dtype),
            "latents_flip": (rng.standard_normal((n, channels, 2, 3)) * 3 + 1).astype(dtype),
            "labels": rng.integers(0, 4, n),
        }
        for n in SIZES
    ]


def write(folder: pathlib.Path, shards: list[dict[str, np.ndarray]], stats: bool = True) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    for k, shard in enumerate(shards):
        save_file(shard, folder / f"latents_rank{k // 2:02d}_shard{k % 2:03d}.safetensors", {"total_size": str(len(shard["latents"]))})
    if stats:
        shutil.copy(STATS_PT, folder)
    return folder


def respoil(**changes):
    """Writes the second shard anew, with some arrays changed."""

    def spoil(folder: pathlib.Path) -> None:
        shard = arrays()[1]
        for key, change in changes.items():
            changed = change(shard.pop(key))
            shard |= {} if changed is None else {key: changed}
        save_file(shard, folder / "latents_rank00_shard001.safetensors")

    return spoil


def with_nan(latents: np.ndarray) -> np.ndarray:
    latents[1, 3, 0, 0] = np.nan
    return latents
