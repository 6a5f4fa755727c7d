"""Labels as people keep them: what is read without a doubt is read, the rest is refused in one line."""

import ml_dtypes
import numpy as np
import pytest

from flowjax import data
from flowjax.data.labels import as_labels, read_text_labels

LABELS = np.array([0, 2, 1, 2, 0])
NAMES = np.array(["ant", "cow", "bee"])[LABELS]  # numbered in their order: ant, bee, cow
BY_NAME = [0, 1, 2, 1, 0]
CASES = [
    (LABELS.astype(np.uint8), None),
    (LABELS.astype(np.float32), None),
    (LABELS.astype(ml_dtypes.bfloat16), None),
    (LABELS[:, None], None),
    (LABELS[None], None),
    (np.eye(3)[LABELS], ("0", "1", "2")),
    (np.eye(4, dtype=bool)[LABELS], ("0", "1", "2", "3")),
    (LABELS.astype(str), None),
    (np.array(["0.0", "2.0", "1.0", "2.0", "0.0"]), None),
]


@pytest.mark.parametrize(("values", "names"), CASES, ids=str)
def test_numbers_of_every_kind_are_read(tmp_path, values, names):
    found, found_names = as_labels(values, 5, "mine")
    np.testing.assert_array_equal(found, LABELS)
    assert found_names == names
    if values.dtype != ml_dtypes.bfloat16:
        np.save(tmp_path / "x.npy", np.zeros((5, 2)))
        np.save(tmp_path / "y.npy", values)
        assert data.load("arrays", path=tmp_path / "x.npy", labels=tmp_path / "y.npy").labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (NAMES, ("ant", "bee", "cow")),
        (NAMES[:, None], ("ant", "bee", "cow")),
        (np.char.encode(NAMES), ("ant", "bee", "cow")),
        (np.array(["Äffin", "猫", "Öl"])[LABELS], ("Äffin", "Öl", "猫")),
    ],
    ids=str,
)
def test_names_become_classes_in_their_order(values, names):
    found, found_names = as_labels(values, 5, "mine")
    assert (found.tolist(), found_names) == (BY_NAME, names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LABELS + 0.5, "label 0 is 0.5, expected whole numbers"),
        (np.array([0, 1, np.nan, 1, 0]), "label 2 is nan"),
        (LABELS[:4], r"shape \(4,\), expected \(5,\)"),
        (np.ones((5, 3)) / 3, "not one-hot"),
        (np.ones((5, 3), int), "not one-hot"),
        (np.zeros((5, 3, 1)), r"shape \(5, 3, 1\)"),
        (np.array(["a", "b", " ", "a", "b"]), "label 2 is empty"),
        (np.array([b"\xff"] * 5), "no UTF-8"),
        ((LABELS + 300).astype(ml_dtypes.bfloat16), "bfloat16 rounds whole numbers from 256 on"),
        (LABELS.astype(complex), "complex128, expected whole numbers or names"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused(values, message):
    with pytest.raises(ValueError, match=message) as error:
        as_labels(values, 5, "mine")
    assert str(error.value).startswith("mine: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "column", "expected"),
    [
        ("y.txt", "0\n2\n1\n2\n0\n\n", "", "02120"),
        ("y.txt", "tench, Tinca\ncow\nbee\ncow\ntench, Tinca", "", ["tench, Tinca", "cow", "bee", "cow", "tench, Tinca"]),
        ("y.csv", "0\r\n2\r\n1\r\n2\r\n0\r\n", "", "02120"),
        ("y.csv", "\ufefflabel\n0\n2\n1\n2\n0\n", "", "02120"),
        ("y.csv", "species\n" + "\n".join(NAMES), "", NAMES.tolist()),
        ("y.csv", ",label\n0,0\n1,2\n2,1\n3,2\n4,0\n", "", "02120"),  # of pandas
        ("y.csv", 'file,class\n"a,1.png",0\nb.png,2\nc.png,1\nd.png,2\ne.png,0\n', "", "02120"),
        ("y.csv", "file;species\na;0\nb;2\nc;1\nd;2\ne;0\n", "species", "02120"),
        ("y.tsv", "a\t0\nb\t2\nc\t1\nd\t2\ne\t0\n", "1", "02120"),
    ],
)
def test_text_files_are_read_with_and_without_a_line_of_names(tmp_path, name, text, column, expected):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_text_labels(tmp_path / name, 5, column).tolist() == list(expected)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("y.txt", "0\n2\n\n2\n0\n", "line 3 has no label"),
        ("y.txt", "0\n2\n1\n", "holds 3 labels, expected 5"),
        ("y.txt", "a.png 0\nb.png 2\nc.png 1\nd.png 2\ne.png 0", "expected one label on each"),
        ("y.csv", "", "holds 0 labels"),
        ("y.csv", "label\n0\n2\n1\n2\n", "holds 4 labels below 'label'"),
        ("y.csv", "0\n2\n1\n2\n0\n1\n", "holds 6 labels"),
        ("y.csv", "ant\ncow\nbee\ncow\nant\nbee\n", "holds 6 labels"),
        ("y.csv", "id,label\n4,0\n3,2\n2,1\n1,2\n0,0\n", "not in the order of the column 'id'"),
        ("y.csv", "0,0\n1,2\n2,1\n3,2\n4,0\n", "2 columns without names; .*label_array=NUMBER"),
        ("y.csv", "file,species\n1,0\n2,2\n3,1\n4,2\n5,0\n", "the columns 'file', 'species'; .*label_array=NAME"),
        ("y.csv", "0\n2,1\n1\n2\n0\n", "line 2 has 2 columns"),
        ("y.csv", 'label\n"0\n2\n1\n2\n0\n', "no CSV file"),
        ("y.csv", b"caf\xe9\n", "no UTF-8 text"),
    ],
)
def test_text_that_leaves_a_doubt_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_text_labels(tmp_path / name, 5)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_csv_file_labels_the_samples_of_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    (tmp_path / "y.csv").write_text("file,species\n" + "".join(f"{k}.png,{name}\n" for k, name in enumerate(NAMES)))
    found = data.open_records("arrays", path=tmp_path / "x.npy", labels=tmp_path / "y.csv", label_array="species")
    assert (found.labels.tolist(), found.class_names) == (BY_NAME, ("ant", "bee", "cow"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        data.load("arrays", path=tmp_path / "x.npy", labels=tmp_path / "nowhere.csv")
