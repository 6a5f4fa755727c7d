"""Tables are read for what they hold, or refused in one line."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowjax import data
from flowjax.data.recognize import recognize


def test_an_array_column_of_hugging_face_keeps_its_shape(tmp_path):
    latents = np.random.default_rng(0).standard_normal((5, 4, 2, 3)).astype(np.float32)
    features = datasets.Features({"latent": datasets.Array3D((4, 2, 3), "float32"), "y": datasets.Value("int64")})
    kept = datasets.Dataset.from_dict({"latent": list(latents), "y": [3, -1, 3, 7, 7]}, features=features)
    kept.save_to_disk(tmp_path / "saved")
    kept.to_parquet(tmp_path / "x.parquet")
    for path in (tmp_path / "saved", tmp_path / "x.parquet"):
        found = data.open_records(recognize(path), path=path)
        np.testing.assert_array_equal(found.load().data, latents)
        assert (found.labels.tolist(), found.class_names) == ([1, 0, 1, 2, 2], ("-1", "3", "7"))
        assert "0 = -1, 1 = 3, 2 = 7" in found.provenance["label_mapping"]


def test_plain_columns_are_the_values_of_a_sample(tmp_path):
    (tmp_path / "x.csv").write_text("id,a,b,species,note\n0,1.5,2,ant,x\n1,3,4,bee,y\n2,5,6,ant,z\n")
    found = data.open_records("table", path=tmp_path / "x.csv", label_array="species")
    np.testing.assert_array_equal(found.load().data, [[1.5, 2], [3, 4], [5, 6]])
    assert (found.labels.tolist(), found.class_names) == ([0, 1, 0], ("ant", "bee"))
    assert found.provenance["not_read"] == "id int64, note string"
    (tmp_path / "plain.csv").write_text("1,2\n3,4\n")
    np.testing.assert_array_equal(data.load("table", path=tmp_path / "plain.csv").data, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption": ["a", "b"], "id": [0, 1]}, "no column of images, arrays or numbers; it has caption string, id int64"),
        (
            {"image": [{"bytes": None, "path": "/etc/passwd"}, {"bytes": b"x", "path": ""}]},
            "row 0 has no bytes of its image in the column 'image'",
        ),
        ({"image": [b"no image", b"no image"]}, "row 0, column 'image': no image of PNG"),
        ({"latent": [[1.0, 2.0], [3.0]]}, r"rows of several shapes in the column 'latent'"),
        ({"latent": [[1.0, 2.0], None]}, "row 1 has no value in the column 'latent'"),
        ({"latent": [[1.0, 2.0], [None, 1.0]]}, "values are missing in the column 'latent'"),
        ({"a": [1.0, 2.0], "label": [0.5, 1.0]}, "label 0 is 0.5, expected whole numbers; .*label_array=none"),
        ({"first": [[1.0], [2.0]], "second": [[1.0], [2.0]]}, "has 2 columns of arrays, first, second; name one"),
    ],
)
def test_a_table_that_leaves_a_doubt_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message) as error:
        data.load("table", path=tmp_path / "x.parquet", cache_dir="none")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_what_its_name_says(tmp_path):
    pq.write_table(pa.table({"a": np.arange(1000.0)}), tmp_path / "whole.parquet")
    for name, content, message in [
        ("x.parquet", b"a,b\n1,2\n", r"it is no \.parquet file but text that begins with 'a,b'"),
        ("cut.parquet", (tmp_path / "whole.parquet").read_bytes()[:-100], "cut short or damaged"),
        ("x.arrow", b"\x89PNG\r\n\x1a\n", r"it is no \.arrow file but a PNG image"),
        ("x.csv", b"PK\3\4\0\0", r"it is no CSV file but a ZIP archive"),
        ("uneven.csv", b"a,b\n1,2\n3\n", "cut short or damaged"),
        ("empty.csv", b"", "it is no CSV file but empty"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            data.load("table", path=tmp_path / name)
        assert (name in str(error.value), "\n" in str(error.value)) == (True, False)


def test_a_saved_data_set_names_no_file_outside_its_folder(tmp_path):
    datasets.Dataset.from_dict({"x": [[1.0], [2.0]]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "../elsewhere.arrow"}]}')
    with pytest.raises(ValueError, match=r"names the file '\.\./elsewhere\.arrow', which does not lie beside it"):
        data.load("table", path=tmp_path / "saved")


def test_splits_are_chosen_by_name(tmp_path):
    for split, values in (("train", [[1.0]]), ("test", [[2.0]])):
        pq.write_table(pa.table({"x": values}), tmp_path / f"{split}-00000-of-00001.parquet")
    found = data.open_records("table", path=tmp_path)
    assert (found.load().data.tolist(), found.provenance["not_read"]) == ([[1.0]], "split test (--config.data.split=NAME)")
    assert data.load("table", path=tmp_path, split="test").data.tolist() == [[2.0]]
    with pytest.raises(ValueError, match="has the splits test, train, not 'val'"):
        data.load("table", path=tmp_path, split="val")
