"""Metadata of TFDS: nothing that they name is imported, and damaged ones end in one line."""

import json
import re
import shutil

import pytest

from flowjax import data

EVIL = {"pythonClassName": "evilset.payload.Feature", "featuresDict": {"features": {}}}
OWN = "tensorflow_datasets.core.features"


@pytest.mark.parametrize(
    ("file", "held"),
    [
        ("features.json", EVIL),
        ("features.json", {"python_class_name": "evilset.payload.Feature", "json_feature": {"json": "{}"}}),
        ("features.json", {"type": "evilset.payload.Feature", "content": {}}),
        ("features.json", {"pythonClassName": f"{OWN}.features_dict.FeaturesDict", "featuresDict": {"features": {"image": EVIL}}}),
        ("features.json", {"pythonClassName": f"{OWN}.sequence_feature.Sequence", "sequence": {"feature": EVIL}}),
        ("features.json", {"pythonClassName": f"{OWN}.features_dict.FeaturesDict", "jsonFeature": {"json": json.dumps({"image": EVIL})}}),
        ("dataset_info.json", {"features": EVIL}),
    ],
)
@pytest.mark.parametrize("by", ["path", "name"])
def test_no_class_that_a_data_set_of_tfds_names_is_imported(tmp_path, monkeypatch, file, held, by):
    folder = tmp_path / "mnist" / "1.0.0"
    folder.mkdir(parents=True)
    (tmp_path / "evilset").mkdir()
    (tmp_path / "evilset" / "payload.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    info = {"name": "mnist", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    for name, value in {"dataset_info.json": info, "features.json": {}, file: (info if file == "dataset_info.json" else {}) | held}.items():
        (folder / name).write_text(json.dumps(value))
    asked = {"path": str(folder)} if by == "path" else {"name": "mnist:1.0.0", "data_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=rf"{file}: names the class 'evilset.payload.Feature'") as error:
        data.open_records("tfds", **asked)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize(
    "change", [{"name": "../digits"}, {"splits": [{"name": "train", "shardLengths": ["1"], "filepathTemplate": "../../{DATASET}-{SPLIT}"}]}]
)
def test_the_files_of_a_data_set_of_tfds_lie_in_its_folder(prepared, tmp_path, change):
    folder = shutil.copytree(prepared / "digits" / "1.0.0", tmp_path / "1.0.0")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | change))
    with pytest.raises(ValueError, match="which may lie outside its folder"):
        data.open_records("tfds", path=str(folder))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"name": 3}', '{"splits": 3}', '{"version": "x"}', '{"unknown": 1}'])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_damaged_metadata_of_tfds_end_in_one_line(prepared, tmp_path, file, text):
    folder = shutil.copytree(prepared / "digits" / "1.0.0", tmp_path / "1.0.0")
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        data.open_records("tfds", path=str(folder), cache_dir="none")
    assert "\n" not in str(error.value)
