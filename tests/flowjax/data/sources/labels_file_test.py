"""Labels in a file beside samples of any source, by the names of files or in the order of the samples; how they were mapped is said."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flowjax import data
from flowjax.data.formats import table_file

COLOURS = {"a1": 10, "b2": 60, "c3": 110, "d4": 160}
CLASSES = {"a1": "cat", "b2": "dog", "c3": "cat", "d4": "emu"}
BY_NAME = "file,kind\nd4.png,emu\nb2.png,dog\nzz.png,cow\nc3.png,cat\na1.png,cat\n"


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((2, 2), level, np.uint8)).save(out, "png")
    return out.getvalue()


@pytest.fixture(name="folder")
def flat_folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, level in COLOURS.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(png(level))
    return tmp_path / "images"


def told(records, values):
    assert [records.class_names[k] for k in records.labels] == [CLASSES[{v: n for n, v in COLOURS.items()}[int(x)]] for x in values]


def test_a_folder_of_images_takes_its_labels_from_a_csv_file_by_name_or_from_lines_in_order(folder, tmp_path):
    (tmp_path / "l.csv").write_text(BY_NAME)
    found = data.open_records("images", path=folder, labels=str(tmp_path / "l.csv"), cache_dir="none")
    told(found, found.read(np.arange(4))[:, 0, 0, 0])
    assert (
        found.provenance["label_mapping"] == "l.csv, by the names of the files: 3 names, numbered in their order: 0 = cat, 1 = dog, 2 = emu"
    )
    (tmp_path / "l.txt").write_text("cat\ndog\ncat\nemu\n")
    lines = data.open_records("images", path=folder, labels=str(tmp_path / "l.txt"), cache_dir="none")
    np.testing.assert_array_equal(lines.labels, found.labels)
    np.save(tmp_path / "l.npy", [0, 1, 0, 2])
    assert data.open_records("images", path=folder, labels=str(tmp_path / "l.npy"), cache_dir="none").labels.tolist() == [0, 1, 0, 2]
    with pytest.raises(FileNotFoundError, match=r"labels='l2\.csv': no such file; expected one with the labels, .names."):
        data.open_records("images", path=folder, labels="l2.csv", cache_dir="none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BY_NAME.replace("c3.png,cat\n", ""), "has no label for c3.png; it has those of 3 of 4 files"),
        (BY_NAME + "c3.png,dog\n", "has two labels for c3.png, 'cat' and 'dog'"),
        (BY_NAME.replace(",kind", ",kind,size").replace("\n", ",3\n").replace("size,3", "size"), "name that of the labels"),
    ],
)
def test_a_label_that_is_missing_or_in_doubt_is_refused(folder, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        data.open_records("images", path=folder, labels=str(tmp_path / "l.csv"), cache_dir="none")
    assert "\n" not in str(error.value)


def test_parquet_and_tars_take_labels_from_a_file(folder, tmp_path):
    pq.write_table(pa.table({"x": [[1.0, 2.0]] * 4, "label": [9, 9, 9, 9]}), tmp_path / "x.parquet")
    (tmp_path / "l.txt").write_text("3\n1\n2\n3\n")
    table = data.open_records("table", path=tmp_path / "x.parquet", labels=tmp_path / "l.txt")
    assert (table.labels.tolist(), table.provenance["label_mapping"]) == ([3, 1, 2, 3], "l.txt: whole numbers, as they are")
    assert table.provenance["not_read"] == "label int64"
    (tmp_path / "l.csv").write_text(BY_NAME)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("c3", "a1", "d4", "b2"):
            tar.add(folder / f"{name}.png", f"{name}.png")
    tars = data.open_records("webdataset", path=tmp_path / "x.tar", labels=tmp_path / "l.csv", cache_dir="none")
    told(tars, tars.read(np.arange(4))[:, 0, 0, 0])


def test_how_labels_were_mapped_is_said_of_arrays_and_of_folders_of_classes(folder, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)), y=np.array(["b", "a", "b"]))
    mapped = data.open_records("arrays", path=tmp_path / "x.npz").provenance["label_mapping"]
    assert mapped == "array y: 2 names, numbered in their order: 0 = a, 1 = b"
    for name, kind in CLASSES.items():
        (folder / kind).mkdir(exist_ok=True)
        (folder / f"{name}.png").rename(folder / kind / f"{name}.png")
    mapped = data.open_records("images", path=folder, cache_dir="none").provenance["label_mapping"]
    assert mapped == "folders: 3 names, numbered in their order: 0 = cat, 1 = dog, 2 = emu"
    assert data.open_records("images", path=folder, label_array="none", cache_dir="none").labels is None


@pytest.mark.parametrize("kept", [0, 2000, 2**30])
def test_rows_of_parquet_in_any_order_are_theirs_whatever_stays_in_memory(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(table_file, "KEPT_BYTES", kept)
    values = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    pq.write_table(pa.table({"latent": list(values)}), tmp_path / "x.parquet", row_group_size=7)
    records = data.open_records("table", path=tmp_path / "x.parquet")
    index = np.random.default_rng(1).integers(0, 60, 200)
    np.testing.assert_array_equal(records.read(index), values[index])
    reads = []
    table = records.rows._table
    monkeypatch.setattr(table, "_read_block", lambda *key, inner=table._read_block: reads.append(key) or inner(*key))
    np.testing.assert_array_equal(records.read(index[::-1]), values[index[::-1]])
    assert len(reads) == (0 if kept == 2**30 else 9)
