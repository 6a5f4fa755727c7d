"""The same samples in every layout that people keep them in are the same data set."""

import io
import pathlib
import tarfile
from collections.abc import Callable

import datasets
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flowjax import data
from flowjax.data.normalization import BYTES
from flowjax.data.recognize import recognize

N = 60
CLASSES = ("ant", "bee", "cow")
LABELS = np.sort(np.arange(N) % 3)


def drawn(i: int) -> PIL.Image.Image:
    """A small picture in colour, another for each number."""
    image = PIL.Image.new("RGB", (12, 10), (i * 4 % 256, 90, 200 - i))
    PIL.ImageDraw.Draw(image).text((1, 0), str(i), fill=(255, 255 - i, i))
    return image


IMAGES = [drawn(i) for i in range(N)]
ARRAY = np.stack([np.array(image) for image in IMAGES])


def png(i: int) -> bytes:
    out = io.BytesIO()
    IMAGES[i].save(out, "PNG")
    return out.getvalue()


def flat(out: pathlib.Path) -> pathlib.Path:
    out.mkdir()
    for i in range(N):
        (out / f"{i:04}.png").write_bytes(png(i))
    return out


def class_folders(out: pathlib.Path) -> pathlib.Path:
    for i, label in enumerate(LABELS):
        (out / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        (out / CLASSES[label] / f"{i:04}.png").write_bytes(png(i))
    return out


def parquet(out: pathlib.Path) -> pathlib.Path:
    (out / "data").mkdir(parents=True)
    for part, rows in enumerate(np.array_split(np.arange(N), 2)):
        table = pa.table({"image": [{"bytes": png(i), "path": None} for i in rows], "label": [CLASSES[LABELS[i]] for i in rows]})
        pq.write_table(table, out / "data" / f"train-{part:05}-of-00002.parquet", row_group_size=7)
    return out


def parquet_of_arrays(out: pathlib.Path) -> pathlib.Path:
    out.mkdir()
    table = pa.table({"pixels": pa.array(ARRAY.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))), "label": LABELS})
    pq.write_table(table, out / "x.parquet", row_group_size=11)
    return out / "x.parquet"


def hugging_face(out: pathlib.Path) -> pathlib.Path:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    kept = datasets.Dataset.from_dict({"image": [{"bytes": png(i), "path": None} for i in range(N)], "label": LABELS}, features=features)
    datasets.DatasetDict({"train": kept, "test": kept.select([1])}).save_to_disk(out)
    return out


def tar_file(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def webdataset(out: pathlib.Path) -> pathlib.Path:
    out.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(N), 2)):
        files = {f"{i:04}.{end}": content for i in rows for end, content in (("png", png(i)), ("cls", str(LABELS[i]).encode()))}
        tar_file(out / f"shard-{part}.tar", files)
    return out


def a_file_each(out: pathlib.Path) -> pathlib.Path:
    for i, label in enumerate(LABELS):
        (out / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        np.save(out / CLASSES[label] / f"{i:04}.npy", ARRAY[i])
    return out


def tensors(out: pathlib.Path) -> pathlib.Path:
    out.mkdir()
    torch.save((torch.from_numpy(ARRAY), torch.from_numpy(LABELS)), out / "x.pt")
    return out / "x.pt"


@pytest.mark.parametrize(
    ("write", "source", "names"),
    [
        (flat, "images", None),
        (class_folders, "images", CLASSES),
        (parquet, "table", CLASSES),
        (parquet_of_arrays, "table", None),
        (hugging_face, "table", CLASSES),
        (webdataset, "webdataset", None),
        (a_file_each, "array_folder", CLASSES),
        (tensors, "arrays", None),
    ],
)
def test_the_same_samples_are_the_same_data_set(
    tmp_path: pathlib.Path, write: Callable[[pathlib.Path], pathlib.Path], source: str, names: tuple[str, ...] | None
) -> None:
    expected = data.DataSet("expected", BYTES(ARRAY)).digest
    path = write(tmp_path / "there")
    assert recognize(path) == source
    cache = {} if source in ("arrays", "array_folder") else {"cache_dir": str(tmp_path / "cache")}
    found = data.open_records(source, path=path, **cache)
    loaded = found.load()
    assert (loaded.digest, found.class_names) == (expected, names)
    np.testing.assert_array_equal(found.labels, None if write is flat else LABELS)
    some = np.array([41, 3, 3, 40])  # in any order, as training asks for them
    np.testing.assert_array_equal(found.read(some), ARRAY[some])
