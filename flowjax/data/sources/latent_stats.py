"""Mean and standard deviation of latents by channel: read from a file beside them, or computed and written there."""

import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from safetensors.numpy import save_file

from flowjax.data.dataset import Rows
from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.formats.torch_file import read_torch
from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.records import Progress
from flowjax.runtime.storage import write_whole

STATS = "latents_stats"
COMPUTED = "computed from all"  # how an origin begins that is no file
_READERS = {".safetensors": read_safetensors, ".npz": read_numpy, ".pt": read_torch, ".pth": read_torch}
_BLOCK_BYTES = 2**25  # of latents that one thread sums at once


def find_stats(folder: pathlib.Path) -> pathlib.Path | None:
    """`latents_stats.safetensors`, `.npz` or `.pt` in a folder, the first of them."""
    return next((file for suffix in _READERS if (file := folder / f"{STATS}{suffix}").is_file()), None)


def read_stats(path: str | os.PathLike, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std `[C]`, float32, from a `.safetensors`, `.npz` or `.pt` file; nothing in it is ever unpickled.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another format, or a file without `mean` and `std` of `channels` finite numbers each, the latter above 0.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix not in _READERS:
        raise ValueError(f"stats={path}: expected a {', '.join(_READERS)} file")
    held = _READERS[path.suffix](path)
    found = []
    for name in ("mean", "std"):
        if not isinstance(held.get(name), np.ndarray):
            raise ValueError(f"stats={path}: holds {', '.join(map(str, held)) or 'nothing'}; expected mean and std")
        values = np.asarray(held[name], np.float32).ravel()
        if values.size != channels:
            raise ValueError(f"stats={path}: {name} has {values.size} values, and the latents have {channels} channels")
        if not np.isfinite(values).all() or (name == "std" and not (values > 0).all()):
            raise ValueError(f"stats={path}: {name} is not finite{' and above 0' * (name == 'std')} in every channel")
        found.append(values)
    return found[0], found[1]


def compute_stats(rows: Rows, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (divisor N - 1) of each channel over all samples and places, `[C]` float32; summed in float64.

    Raises:
      ValueError: NaN or infinity, or a channel that is constant.
    """
    n, channels = rows.shape[0], rows.shape[-1]
    step = max(1, _BLOCK_BYTES // (int(np.prod(rows.shape[1:])) * 8))
    center = np.asarray(rows[np.arange(1)], np.float64).reshape(-1, channels).mean(0)  # so that squares do not cancel

    def sums(start: int) -> tuple[np.ndarray, np.ndarray]:
        values = rows[np.arange(start, min(start + step, n))].astype(np.float64).reshape(-1, channels) - center
        total, square = values.sum(0), (values**2).sum(0)
        if not np.isfinite(square).all():
            bad = int(np.argmin(np.isfinite(values).all(1)) // np.prod(rows.shape[1:-1], dtype=int))
            raise ValueError(f"latents: sample {start + bad} has NaN or infinity")
        return total, square

    total, square, starts = np.zeros(channels), np.zeros(channels), range(0, n, step)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, (t, s) in zip(progress("statistics")(starts) if progress else starts, pool.map(sums, starts), strict=True):
            total, square = total + t, square + s
    count = n * int(np.prod(rows.shape[1:-1]))
    std = np.sqrt(np.maximum(square - total**2 / count, 0) / max(count - 1, 1))
    if not (std > 0).all():
        raise ValueError(
            f"latents: channel {int(np.argmin(std))} has the same value everywhere and cannot be normalised; set normalize=none"
        )
    return (center + total / count).astype(np.float32), std.astype(np.float32)


def save_stats(path: pathlib.Path, mean: np.ndarray, std: np.ndarray) -> None:
    """Writes `.safetensors` with `mean` and `std` in LightningDiT's shape `[1, C, 1, 1]`; the file is whole or not there."""
    shape = (1, -1, 1, 1)
    write_whole(path, lambda file: save_file({"mean": mean.reshape(shape), "std": std.reshape(shape)}, file))


def latent_normalization(
    rows: Rows, folder: pathlib.Path, stats: str, multiplier: float, normalize: str, progress: Progress | None
) -> tuple[Normalization, str]:
    """The normalisation of latents, and where its statistics are from."""
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    if normalize == "none":
        return (IDENTITY if multiplier == 1 else Normalization(multiplier=multiplier, formula=f"z * {multiplier:g}")), "none"
    file = pathlib.Path(stats).expanduser() if stats else find_stats(folder)
    if file is not None:
        mean, std = read_stats(file, rows.shape[-1])
        origin = str(file)
    else:
        mean, std = compute_stats(rows, progress)
        target = folder / f"{STATS}.safetensors"
        try:
            save_stats(target, mean, std)
            origin = f"{COMPUTED} {rows.shape[0]:,} latents, and written to {target}"
        except OSError as error:
            origin = f"{COMPUTED} {rows.shape[0]:,} latents ({folder} cannot be written: {error.strerror})"
    return Normalization(mean, std, multiplier, f"(z - mean) / std * {multiplier:g}"), origin
