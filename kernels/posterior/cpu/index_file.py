"""An index on disk: one `.npz` beside the data. It holds a digest of its samples, not the samples themselves."""

import dataclasses
import hashlib
import os
import zipfile
from typing import Any

import numpy as np

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.index import Bytes, Index, Table

FORMAT = 1
"""Version of the file; an index of another version is made anew."""


def save_index(index: Index, path: str | os.PathLike[str]) -> None:
    """Write the index."""
    table = index.table
    arrays: dict[str, Any] = {
        "format": FORMAT,
        "digest": digest_of(index),
        "basis": index.basis,
        "groups": np.array(index.groups),
        "row": index.row,
        "leaves": np.array([[*key, part.start, part.stop] for key, part in index.leaves.items()]),
        "origin": index.origin,
        "step": index.step,
        "middle_step": index.middle_step,
        **{name: getattr(table, name) for name in ("low", "high", "likely", "columns", "norms", "prior")},
        **{f"{name}_{part}": v for name in ("middle", "whole") for part, v in getattr(table, name)._asdict().items()},
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def load_index(samples: HostSamples, path: str | os.PathLike[str]) -> Index | None:
    """The index of these samples from a file; None if there is no file, or it is damaged, or has other samples or another format."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT or str(file["digest"]) != digest_of(samples):
                return None
            saved = {name: file[name] for name in file.files}
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None
    middle, whole = (Bytes(*(saved[f"{name}_{part}"] for part in Bytes._fields)) for name in ("middle", "whole"))
    return Index(
        **{field.name: getattr(samples, field.name) for field in dataclasses.fields(HostSamples)},
        basis=saved["basis"],
        groups=tuple((int(a), int(b)) for a, b in saved["groups"]),
        table=Table(middle=middle, whole=whole, **{name: saved[name] for name in ("low", "high", "likely", "columns", "norms", "prior")}),
        row=saved["row"],
        leaves={(int(a), int(b)): slice(int(c), int(d)) for a, b, c, d in saved["leaves"]},
        origin=saved["origin"],
        step=saved["step"],
        middle_step=saved["middle_step"],
    )


def digest_of(samples: HostSamples) -> str:
    """A digest of the samples, how often each counts, and their classes."""
    digest = hashlib.blake2b(repr((samples.rows.shape, str(samples.rows.dtype), sorted(samples.classes.items(), key=str))).encode())
    for v in (samples.rows, samples.log_prior, samples.original):
        digest.update(np.ascontiguousarray(v).data)
    return digest.hexdigest()
