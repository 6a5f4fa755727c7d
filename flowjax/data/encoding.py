"""Latents of a data set, written to disk in LightningDiT's layout, shard by shard: an interrupted encoding is resumed."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from flowjax.data.encoder import Encoder
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.recognize import ENCODING, SHARDS
from flowjax.data.records import KEPT_DTYPES, Progress, Records
from flowjax.data.sources import latents
from flowjax.data.sources.latent_stats import STATS, compute_stats, save_stats
from flowjax.runtime.locks import locked
from flowjax.runtime.storage import write_whole

DTYPES = {**KEPT_DTYPES, "float16": np.dtype("f2")}


@dataclasses.dataclass(frozen=True)
class EncodingSettings:
    """How latents are made and laid out.

    Attributes:
      flips: encode each mirror image too.
      dtype: "float32", "float16" or "bfloat16".
      shard_size: samples in a file.
      batch_size: images encoded at once; the latents do not depend on it.
    """

    flips: bool = True
    dtype: str = "float32"
    shard_size: int = 10_000
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: expected {', '.join(DTYPES)}")
        if self.shard_size < 1 or self.batch_size < 1:
            raise ValueError(f"shard_size={self.shard_size}, batch_size={self.batch_size}: expected sizes above 0")


def encode_records(
    folder: str | os.PathLike,
    records: Records,
    encoder: Encoder,
    settings: EncodingSettings = EncodingSettings(),
    *,
    process_index: int = 0,
    process_count: int = 1,
    progress: Progress | None = None,
) -> pathlib.Path:
    """Writes `latents_rank{RR}_shard{SSS}.safetensors`: `latents`, `latents_flip` `[n, C, H, W]`, `labels` `[n]`; and `latents_stats`.

    Un-normalised, as LightningDiT's are. Each process encodes a contiguous part of the samples, in order, under its own rank; call it with
    process 0 last, or once all others have returned: that one computes the statistics and marks the folder as finished. Every file is
    whole or not there; a second call with the same settings goes on where the first was interrupted, and the shards have the same bytes.

    Args:
      folder: made if need be.
      process_index, process_count: this process, and how many there are.

    Raises:
      ValueError: a folder that holds other latents, latents that are NaN or infinite, a process that is none of `process_count`.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process {process_index} of {process_count}: expected one from 0 to {process_count - 1}")
    if settings.flips:
        records.check_can_mirror()
    root = pathlib.Path(folder).expanduser()
    made_of = {"data": dict(records.provenance), "n": records.n, "encoder": dict(encoder.settings)}
    layout = {"flips": settings.flips, "dtype": settings.dtype, "shard_size": settings.shard_size, "processes": process_count}
    try:
        described = json.loads(json.dumps(made_of | layout))
    except TypeError as error:
        raise ValueError(f"encoder: its settings are to be plain JSON values ({error})") from error
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ENCODING):
        _begin(root, described)
    bounds = np.linspace(0, records.n, process_count + 1).astype(int)
    begin, end = int(bounds[process_index]), int(bounds[process_index + 1])
    starts = range(begin, end, settings.shard_size)
    encode = jax.jit(encoder.encode)
    for k, start in enumerate(progress("shards")(starts) if progress else starts):
        file = root / f"latents_rank{process_index:02d}_shard{k:03d}.safetensors"
        index = np.arange(start, min(start + settings.shard_size, end))
        if not _is_whole(file, len(index)):
            shard = _shard(records, index, encode, settings)
            note = {"total_size": str(len(index))}  # one entry: the library writes several in an order that changes from run to run
            write_whole(file, functools.partial(save_file, shard, metadata=note))
    if process_index == 0:
        _finish(root, described, records.n, encoder, progress)
    return root


def _begin(root: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Claims the folder for these settings; a ValueError if it belongs to others."""
    manifest = root / ENCODING
    if manifest.exists():
        earlier = latents.read_encoding(root)["settings"]
        changed = sorted(key for key in settings if earlier.get(key) != settings[key])
        if changed:
            raise ValueError(f"{root}: holds latents of other settings ({', '.join(changed)} differ); remove the folder or give another")
        return
    if next(root.glob(SHARDS), None) is not None:
        raise ValueError(f"{root}: holds latents that were not written here; give another folder")
    _write(manifest, {"finished": False, "settings": settings})


def _finish(root: pathlib.Path, settings: Mapping[str, Any], n: int, encoder: Encoder, progress: Progress | None) -> None:
    rows = latents.open_shards(sorted(root.glob(SHARDS)))[0]
    if rows.shape[0] != n:
        raise ValueError(f"{root}: holds {rows.shape[0]:,} of {n:,} latents; run process 0 again when the others have ended")
    encoder.save(root)
    save_stats(root / f"{STATS}.safetensors", *compute_stats(rows, progress))
    _write(root / ENCODING, {"finished": True, "settings": settings})


def _write(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def _is_whole(file: pathlib.Path, n: int) -> bool:
    try:
        return len(read_safetensors(file)["latents"]) == n
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _shard(records: Records, index: np.ndarray, encode: Any, settings: EncodingSettings) -> dict[str, np.ndarray]:
    shard = {"latents": _encoded(records, index, False, encode, settings)}
    if settings.flips:
        shard["latents_flip"] = _encoded(records, index, True, encode, settings)
    if records.labels is not None:
        shard["labels"] = records.labels[index].astype(np.int64)
    return shard


def _encoded(records: Records, index: np.ndarray, mirror: bool, encode: Any, settings: EncodingSettings) -> np.ndarray:
    """Latents `[n, C, H, W]` of samples or of their mirror images."""
    parts, batch_size, dtype = [], settings.batch_size, DTYPES[settings.dtype]
    for start in range(0, len(index), batch_size):
        batch = index[start : start + batch_size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch))])  # one shape, one program
        values = records.normalization(records.read(padded, np.full(batch_size, mirror)))
        found = np.asarray(encode(values))[: len(batch)]
        if found.ndim != 4:
            raise ValueError(f"encoder: gives latents of shape {found.shape}, expected [B, H, W, C]")
        with np.errstate(over="ignore"):
            found = np.moveaxis(found, -1, 1).astype(dtype)
        finite = np.isfinite(found).all((1, 2, 3))
        if not finite.all():
            raise ValueError(f"encoder: the latent of sample {batch[np.argmin(finite)]} is NaN or infinite in {dtype}")
        parts.append(found)
    return np.ascontiguousarray(np.concatenate(parts))
