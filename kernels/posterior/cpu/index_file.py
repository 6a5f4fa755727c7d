"""An index on disk: one `.npz` beside the data, without the samples themselves, and a digest of those it is of."""

import dataclasses
import hashlib
import os
import pathlib
import tempfile
import zipfile
from typing import Any

import numpy as np

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.index import Bytes, Index, Table

FORMAT = 1
"""Of the file; an index of another is made anew."""


def save_index(index: Index, path: str | os.PathLike[str]) -> None:
    """Write the index; whoever reads meanwhile sees the old file or the new one."""
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
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as aside:
        np.savez(aside, **arrays)
    os.replace(aside.name, path)


def load_index(samples: HostSamples, path: str | os.PathLike[str]) -> Index | None:
    """The index of these samples from a file; None if there is no file, or it is of other samples, or of another format."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT or str(file["digest"]) != digest_of(samples):
                return None
            found = {name: file[name] for name in file.files}
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None
    middle, whole = (Bytes(*(found[f"{name}_{part}"] for part in Bytes._fields)) for name in ("middle", "whole"))
    return Index(
        **{field.name: getattr(samples, field.name) for field in dataclasses.fields(HostSamples)},
        basis=found["basis"],
        groups=tuple((int(a), int(b)) for a, b in found["groups"]),
        table=Table(middle=middle, whole=whole, **{name: found[name] for name in ("low", "high", "likely", "columns", "norms", "prior")}),
        row=found["row"],
        leaves={(int(a), int(b)): slice(int(c), int(d)) for a, b, c, d in found["leaves"]},
        origin=found["origin"],
        step=found["step"],
        middle_step=found["middle_step"],
    )


def digest_of(samples: HostSamples) -> str:
    """Of the samples, how often each counts, and their classes."""
    digest = hashlib.blake2b(repr((samples.rows.shape, str(samples.rows.dtype), sorted(samples.classes.items(), key=str))).encode())
    for v in (samples.rows, samples.log_prior, samples.original):
        digest.update(np.ascontiguousarray(v).data)
    return digest.hexdigest()
