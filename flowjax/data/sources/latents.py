"""Latents as they are published: LightningDiT's safetensors shards, and the folders of REPA and EDM2."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.recognize import ENCODING, SHARDS
from flowjax.data.records import Progress, Records
from flowjax.data.sources.latent_stats import latent_normalization

THREADS = 8  # threads that read from different files: the disk limits
SD_VAE_MULTIPLIER = 0.18215  # the convention of Stable Diffusion's autoencoder, which is not normalised otherwise
_REAL = "fV"  # kinds of dtypes: floats of NumPy, and of ml_dtypes


def records(
    path: str | os.PathLike, stats: str = "", multiplier: float = 0.0, normalize: str = "auto", progress: Progress | None = None
) -> Records:
    """LightningDiT's latents, `latents_rank{RR}_shard{SSS}.safetensors`: `latents`, perhaps `latents_flip` `[n, C, H, W]`, `labels` `[n]`.

    Shards are memory-mapped; opening them reads their headers and labels. Samples are `[H, W, C]` here, in the order of the files' names,
    in the dtype of the files; `latents_flip` are their mirror images. A model sees `(z - mean) / std * multiplier`.

    Args:
      path: the folder, or a single file.
      stats: `.safetensors`, `.npz` or `.pt` with `mean` and `std`, of C numbers each; "" looks for `latents_stats` beside the shards, and
        if it is not there computes it from all latents and leaves it there.
      multiplier: 0 is LightningDiT's 1.
      normalize: "auto" as above; "none" leaves out mean and std: SD-VAE's latents are trained on with `multiplier=0.18215` alone.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: a shard that is cut short, of another shape or dtype than the first, without latents, or with labels that do not fit.
    """
    root = pathlib.Path(path).expanduser()
    files = [root] if root.is_file() else sorted(root.glob(SHARDS))
    if not files:
        raise FileNotFoundError(f"path={root}: no {SHARDS} there; expected LightningDiT's latents")
    if root.is_dir() and (root / ENCODING).is_file() and not read_encoding(root)["finished"]:
        raise ValueError(f"{root}: an encoding that was interrupted; run encode_latents again with --resume and the same settings")
    rows, mirrored, labels = open_shards(files)
    folder = root if root.is_dir() else root.parent
    normalization, origin = latent_normalization(rows, folder, stats, multiplier or 1.0, normalize, progress)
    return Records(
        name=root.name if root.is_dir() else root.stem,
        rows=rows,
        labels=labels,
        normalization=normalization,
        mirrored=mirrored,
        provenance={"source": "latents", "path": str(root), "shards": len(files), "stats": origin, "multiplier": normalization.multiplier},
    )


def read_encoding(folder: pathlib.Path) -> dict[str, Any]:
    """What `encode_records` says of the shards beside it: `finished`, and `settings`.

    Raises:
      ValueError: a damaged file.
    """
    try:
        found = json.loads((folder / ENCODING).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found["finished"], bool) and isinstance(found["settings"], dict):
            return found
        raise KeyError("finished, settings")
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{folder / ENCODING}: not read: it is damaged ({error}); remove it if the latents beside it are whole") from error


def open_shards(files: Sequence[pathlib.Path]) -> tuple["ShardedRows", "ShardedRows | None", np.ndarray | None]:
    """Latents, their mirror images and labels of some shards; nothing but headers and labels is read."""
    with ThreadPoolExecutor(THREADS) as pool:
        shards = list(pool.map(_shard, files))
    for key in ("latents_flip", "labels"):
        having = [key in shard for shard in shards]
        if any(having) and not all(having):
            raise ValueError(f"{files[having.index(False)]}: has no {key}, which {files[having.index(True)].name} has")
    rows, mirrored = (ShardedRows([s[key] for s in shards], files) if key in shards[0] else None for key in ("latents", "latents_flip"))
    assert rows is not None
    return rows, mirrored, np.concatenate([shard["labels"] for shard in shards]) if "labels" in shards[0] else None


def _shard(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a shard, checked; labels are read here."""
    held = read_safetensors(file)
    if "latents" not in held:
        raise ValueError(f"{file}: holds the arrays {', '.join(held) or '(none)'}; expected one called latents")
    latents = held["latents"]
    if latents.ndim != 4 or latents.dtype.kind not in _REAL:
        raise ValueError(f"{file}: latents are {latents.dtype} of shape {latents.shape}, expected real numbers [n, C, H, W]")
    found = {"latents": latents}
    if "latents_flip" in held:
        found["latents_flip"] = held["latents_flip"]
        if found["latents_flip"].shape != latents.shape or found["latents_flip"].dtype != latents.dtype:
            flip = found["latents_flip"]
            raise ValueError(
                f"{file}: latents_flip are {flip.dtype} {flip.shape}, expected those of latents, {latents.dtype} {latents.shape}"
            )
    if "labels" in held:
        found["labels"] = np.array(held["labels"])
        if found["labels"].shape != (len(latents),):
            raise ValueError(f"{file}: labels have shape {found['labels'].shape}, expected ({len(latents)},), one for each latent")
    return found


class ShardedRows:
    """Arrays `[n_k, C, H, W]` of several files, one after the other, read as rows `[H, W, C]`.

    Raises:
      ValueError: arrays of several shapes or dtypes.
    """

    def __init__(self, parts: Sequence[np.ndarray], files: Sequence[pathlib.Path]):
        first = parts[0]
        for part, file in zip(parts, files, strict=True):
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{file}: latents are {part.dtype} {part.shape[1:]}, those of {files[0].name} {first.dtype} {first.shape[1:]}"
                )
        self._files = files
        self._parts, self._ends = parts, np.cumsum([len(part) for part in parts])
        channels, height, width = first.shape[1:]
        self.shape, self.dtype = (int(self._ends[-1]), height, width, channels), first.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        where = np.searchsorted(self._ends, index, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        for shard in np.unique(where):
            chosen = np.flatnonzero(where == shard)
            out[chosen] = np.moveaxis(self._parts[shard][index[chosen] - starts[shard]], 1, -1)
        return out

    def over_arrays(self, f: Callable[[Any], Any]) -> "ShardedRows":
        """The same rows of `f` of each file's array."""
        return ShardedRows([f(part) for part in self._parts], self._files)


def repa_records(path: str | os.PathLike, multiplier: float = 0.0, normalize: str = "auto", stats: str = "") -> Records:
    """The latents of REPA and EDM2: `dataset.json` with `{"labels": [[file, class], ...]}`, and one `.npy` `[C, H, W]` per sample.

    Files called `img-mean-std-*` hold a mean and a standard deviation, `[2C, H, W]`: the encoder's distribution. Its mean is the sample
    here, so that the empirical set is finite (REPA's training draws from it anew each time). Read when asked for, in parallel; `[H, W, C]`.

    Args:
      path: the folder of `dataset.json`, or the one above its `vae-sd`.
      multiplier: 0 is SD-VAE's 0.18215, or 1 where `stats` is given.
      normalize: "auto" multiplies, and normalises by `stats` if they are given; "none" leaves the values as they are.
      stats: as in `records`; "" normalises by none.

    Raises:
      FileNotFoundError: no dataset.json, or a file that it names is not there.
      ValueError: a dataset.json that is damaged, or a file of another shape than the first.
    """
    root = pathlib.Path(path).expanduser()
    root = root if (root / "dataset.json").is_file() else root / "vae-sd"
    if not (root / "dataset.json").is_file():
        raise FileNotFoundError(f"path={path}: no dataset.json there")
    try:
        pairs = json.loads((root / "dataset.json").read_text(encoding="utf-8"))["labels"]
        names, labels = [str(name) for name, _ in pairs or ()], [label for _, label in pairs or ()]
        if not all(isinstance(label, int) and abs(label) < 2**63 for label in labels):
            raise TypeError("a label is no whole number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{root / 'dataset.json'}: not read: expected {{'labels': [[FILE, CLASS], ...]}} ({error})") from error
    if not names:
        names = sorted(str(file.relative_to(root)) for file in root.rglob("*.npy"))
    rows = FileRows(root, names)
    if normalize == "none":
        normalization, origin = IDENTITY, "none"
    elif stats:
        normalization, origin = latent_normalization(rows, root, stats, multiplier or 1.0, normalize, None)
    else:
        scale = multiplier or SD_VAE_MULTIPLIER
        normalization, origin = Normalization(multiplier=scale, formula=f"z * {scale:g}"), "none: SD-VAE's convention"
    return Records(
        name=root.parent.name if root.name == "vae-sd" else root.name,
        rows=rows,
        labels=np.array(labels, np.int64) if labels else None,
        normalization=normalization,
        mirrored=None,
        provenance={"source": "repa", "path": str(root), "stats": origin, "multiplier": normalization.multiplier},
    )


class FileRows:
    """One `.npy` per sample, `[C, H, W]`, or `[2C, H, W]` of mean and standard deviation, read as rows `[H, W, C]`: the mean."""

    def __init__(self, root: pathlib.Path, names: list[str]):
        if not names:
            raise ValueError(f"{root}: names no samples")
        outside = next((name for name in names if pathlib.PurePath(name).is_absolute() or ".." in pathlib.PurePath(name).parts), None)
        if outside is not None:
            raise ValueError(f"{root / 'dataset.json'}: names {outside!r}, which leads out of its folder")
        self._root, self._names = root, names
        self._pool = ThreadPoolExecutor(THREADS)
        self._twofold = pathlib.PurePath(names[0]).name.startswith("img-mean-std-")
        first = self._read(0)
        self.shape, self.dtype = (len(names), *first.shape), first.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), self.dtype)

        def fill(k: int) -> None:
            found = self._read(int(index[k]))
            if found.shape != self.shape[1:] or found.dtype != self.dtype:
                shapes = f"{found.dtype} {found.shape}, the first {self.dtype} {self.shape[1:]}"
                raise ValueError(f"{self._root / self._names[index[k]]}: latents are {shapes}")
            out[k] = found

        list(self._pool.map(fill, range(len(index))))
        return out

    def _read(self, i: int) -> np.ndarray:
        file = self._root / self._names[i]
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file, and {self._root / 'dataset.json'} names it")
        found = next(iter(read_numpy(file).values()))
        if found.ndim not in (3, 4) or found.dtype.kind not in _REAL:
            raise ValueError(f"{file}: holds {found.dtype} {found.shape}, expected a latent [C, H, W] of real numbers")
        found = found.reshape(found.shape[-3:])
        if self._twofold:
            found = found[: len(found) // 2]
        return np.moveaxis(found, 0, -1)
