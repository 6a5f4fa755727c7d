"""WebDataset's tars: the files of a sample have one name and several endings. Nothing is unpacked, and links are refused."""

import json
import os
import pathlib
import tarfile
from typing import Any, NamedTuple

import numpy as np

from flowjax.data.cache import stamp
from flowjax.data.formats.decoding import Encoded, image_rows
from flowjax.data.formats.file_kind import kind_of_file
from flowjax.data.formats.numpy_rows import NumpyRows
from flowjax.data.labels import LABEL_NAMES, NAME_IT
from flowjax.data.normalization import array_scaling
from flowjax.data.records import Progress, Records, said
from flowjax.data.sources.image_files import IMAGE_SUFFIXES, is_rubbish
from flowjax.data.sources.labels_file import labels_in_file, labels_of_values
from flowjax.runtime.messages import first_line

_LABELS = ("cls", "cls.txt", "label", "label.txt", "class")
_MARK = bytes(512)  # a tar ends with two such blocks
_LONGEST_LABEL = 2**20  # bytes of a .cls or .json file


class _Member(NamedTuple):
    """Where the content of a file lies."""

    tar: int
    offset: int
    size: int


# Its parameters are those of a configuration, which open_records looks up.
def records(
    path: str | os.PathLike,
    array: str = "",
    label_array: str = "",
    normalize: str = "auto",
    multiplier: float = 0.0,
    resolution: int = 0,
    cache_dir: str = "",
    labels: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Records:
    """The samples of tars, in the order of the tars' names and of the files in them: images, or `.npy` arrays such as latents.

    A file belongs to the sample of its name up to the first dot, as WebDataset has it; the rest is its ending. Content is read by
    position when it is asked for; images are decoded once and kept. Endings that are not read stand in `provenance["not_read"]`.

    Args:
      path: a `.tar`, or a folder of them.
      array: the ending of the samples, `jpg` or `latent.npy`; "": the only one of an image, or else of a `.npy`.
      label_array: the ending of the labels, or a key in `.json`; "": `.cls`, else a usual key, else the folders if there are several;
        "none": no labels.
      normalize, multiplier: as `flowjax.data.normalization.array_scaling`.
      resolution, cache_dir: of images, as in `image_folder.records`.
      labels: a file with the labels, as `labels_file.labels_in_file`: by the samples' names, or in their order; `label_array` then names
        what is in it.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: a file that is no tar, is compressed, cut short or damaged; links in it; no samples, or samples without one of the files;
        labels that do not fit.
    """
    root = pathlib.Path(path).expanduser()
    tars = [root] if root.is_file() else sorted(file for file in root.rglob("*.tar") if not is_rubbish(file.name))
    if not tars:
        raise FileNotFoundError(f"path={root}: no .tar file there")
    samples = _index(tars)
    endings = list(dict.fromkeys(ending for files in samples.values() for ending in files))
    ending = _sample_ending(root, endings, array)
    keys = [key for key, files in samples.items() if ending in files]
    if len(keys) < len(samples):
        missing = next(key for key in samples if ending not in samples[key])
        raise ValueError(f"{root}: {len(samples) - len(keys):,} of {len(samples):,} samples have no .{ending}, the first {missing[1]!r}")
    members = [samples[key][ending] for key in keys]

    def content(index: np.ndarray) -> list[bytes]:
        return [_read(tars, members[i]) for i in index]

    def named(i: int) -> str:
        return f"{tars[keys[i][0]]}: {keys[i][1]}.{ending}"

    if _is_array(ending):
        rows: Any = NumpyRows(content, len(keys), named)
    else:
        encoded = Encoded(lambda index: (content(index), None), len(keys), named, {"tars": stamp(root, tars), "ending": ending})
        rows = image_rows(encoded, resolution, cache_dir, root.stem, progress)
    if labels:
        names = [f"{key[1]}.{ending}" for key in keys]
        found = _Labels(*labels_in_file(labels, len(keys), label_array, files=names))
    else:
        found = _labels(root, tars, [samples[key] for key in keys], [key[1] for key in keys], label_array)
    scaling, value_range = array_scaling(normalize, multiplier, rows.dtype)
    left = [f".{one}" for one in endings if one not in (ending, found.ending)]
    return Records(
        name=root.stem,
        rows=rows,
        labels=found.labels,
        class_names=found.class_names,
        normalization=scaling,
        value_range=value_range,
        provenance={
            "source": "webdataset",
            "path": str(root),
            "taken_for": f"WebDataset: .{ending} in {len(tars):,} tar{'s' * (len(tars) > 1)}, in their order",
            **said(label_mapping=found.mapping, not_read=", ".join(left)),
        },
    )


def _index(tars: list[pathlib.Path]) -> dict[tuple[int, str], dict[str, _Member]]:
    """The files of each sample, by ending; samples by tar and name, in their order."""
    samples: dict[tuple[int, str], dict[str, _Member]] = {}
    for k, path in enumerate(tars):
        size = path.stat().st_size
        try:
            with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _add(samples, k, member, path)
                    if member.offset_data + member.size > size:
                        raise ValueError(f"{path}: not read: cut short in {member.name!r}; copy it again")
                    tar.members.clear()  # type: ignore[attr-defined]  # they would be kept, a kilobyte each
                file.seek(tar.offset)
                if file.read(512) != _MARK:
                    raise ValueError(
                        f"{path}: not read: cut short or damaged at byte {tar.offset:,}, where its end mark is missing; copy it again"
                    )
        except (tarfile.TarError, OSError, EOFError) as error:
            kind = kind_of_file(path)
            remedy = "; decompress it (gunzip): a compressed tar cannot be read at random" if kind == "a gzip archive" else ""
            raise ValueError(f"{path}: not read: no tar, cut short or damaged ({first_line(error)}); it is {kind}{remedy}") from error
    if not samples:
        raise ValueError(f"{tars[0]}: no files in it")
    return samples


def _add(samples: dict[tuple[int, str], dict[str, _Member]], tar: int, member: tarfile.TarInfo, path: pathlib.Path) -> None:
    folder, _, name = member.name.rpartition("/")
    if member.isdir() or is_rubbish(name) or any(map(is_rubbish, folder.removeprefix("./").split("/"))):
        return
    if not member.isreg() or member.issparse():
        raise ValueError(f"{path}: {member.name!r} is a link or another special file, which is not followed; pack the files themselves")
    stem, _, ending = name.partition(".")
    files = samples.setdefault((tar, f"{folder}/{stem}" if folder else stem), {})
    if ending.lower() in files:
        raise ValueError(f"{path}: holds {member.name!r} twice; give each sample a name of its own")
    files[ending.lower()] = _Member(tar, member.offset_data, member.size)


def _read(tars: list[pathlib.Path], member: _Member) -> bytes:
    with open(tars[member.tar], "rb", buffering=0) as file:
        return os.pread(file.fileno(), member.size, member.offset)


def _is_array(ending: str) -> bool:
    return ending.rpartition(".")[2] == "npy"


def _sample_ending(root: pathlib.Path, endings: list[str], wanted: str) -> str:
    wanted = wanted.lstrip(".").lower()
    images = [ending for ending in endings if f".{ending.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    arrays = [ending for ending in endings if _is_array(ending)]
    there = ", ".join(f".{ending}" for ending in endings[:8]) + ", ..." * (len(endings) > 8)
    found = images or arrays
    if wanted and wanted in (*images, *arrays):
        return wanted
    if wanted or not found:
        raise ValueError(f"{root}: has no images or .npy arrays{f' called .{wanted}' if wanted else ''}; its files end with {there}")
    if len(found) > 1:
        raise ValueError(f"{root}: its samples may be any of {', '.join(found)}; name one, --config.data.array={found[0]}")
    return found[0]


class _Labels(NamedTuple):
    """The labels, how they were numbered, and the ending that they are from."""

    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    mapping: str = ""
    ending: str = ""


def _labels(root: pathlib.Path, tars: list[pathlib.Path], samples: list[dict[str, _Member]], keys: list[str], wanted: str) -> _Labels:
    if wanted == "none":
        return _Labels()
    first = samples[0]
    ending = wanted if wanted in first else next((one for one in _LABELS if one in first), "") if not wanted else ""
    if ending:
        texts = [_text(root, tars, files, ending, key) for files, key in zip(samples, keys, strict=True)]
        return _numbered(root, np.array([text.strip() for text in texts]), f".{ending}", ending)
    held = _object(root, _text(root, tars, first, "json", keys[0]), keys[0]) if "json" in first else {}
    name = wanted if wanted in held else next((one for one in LABEL_NAMES if one in held), "") if not wanted else ""
    if name:
        values = [_object(root, _text(root, tars, files, "json", key), key).get(name) for files, key in zip(samples, keys, strict=True)]
        wrong = next((k for k, value in enumerate(values) if not isinstance(value, str | int | float)), None)
        if wrong is not None:
            raise ValueError(f"{root}: {keys[wrong]}.json has no {name!r} that is a number or a name; set {NAME_IT}=none for no labels")
        return _numbered(root, np.array(values), f"{name} in .json", "json")
    if wanted:
        raise ValueError(f"{root}: no labels called {wanted!r}: neither an ending of its files nor a key of .json")
    folders = [key.rpartition("/")[0] for key in keys]
    if len(set(folders)) > 1:
        return _numbered(root, np.array([folder.rpartition("/")[2] for folder in folders]), f"folders ({NAME_IT}=none to leave them)", "")
    return _Labels()


def _numbered(root: pathlib.Path, values: np.ndarray, origin: str, ending: str) -> _Labels:
    try:
        return _Labels(*labels_of_values(values, len(values), f"{root}, {origin}", origin), ending)
    except ValueError as error:
        raise ValueError(f"{error}; to read the samples alone set {NAME_IT}=none") from error


def _text(root: pathlib.Path, tars: list[pathlib.Path], files: dict[str, _Member], ending: str, key: str) -> str:
    if ending not in files or files[ending].size > _LONGEST_LABEL:
        raise ValueError(f"{root}: sample {key!r} has no .{ending} as others have; set {NAME_IT}=none for no labels")
    try:
        return _read(tars, files[ending]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{root}: {key}.{ending} is no UTF-8 text") from error


def _object(root: pathlib.Path, text: str, key: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{root}: {key}.json is damaged ({error})") from error
    return found if isinstance(found, dict) else {}
