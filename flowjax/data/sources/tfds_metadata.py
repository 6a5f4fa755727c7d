"""The metadata of a prepared TFDS data set, checked before TFDS reads them: TFDS imports the classes and opens the files that they name."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

_FILES = ("features.json", "dataset_info.json")
_FEATURES = "tensorflow_datasets.core.features."
_CLASS_KEYS = ("pythonClassName", "python_class_name")
_TEMPLATE_KEYS = ("filepathTemplate", "filepath_template")


def check_metadata(folder: pathlib.Path) -> None:
    """See that the metadata in a folder name no class but TFDS's own features, and no file outside the folder.

    Raises:
      ValueError: they do, or they are no JSON.
    """
    for file in (folder / name for name in _FILES):
        if not file.is_file():
            continue
        try:
            held = list(_objects(json.loads(file.read_text(encoding="utf-8"))))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not read: it is damaged ({error})") from error
        for each in held:
            for name in _class_names(each):
                if not (isinstance(name, str) and name.startswith(_FEATURES)):
                    raise ValueError(
                        f"{file}: names the class {name!r}, which is none of {_FEATURES}*: "
                        "TFDS would import it and so run it, and nothing that a file names is run here"
                    )
        if file.name == "dataset_info.json":
            for name in _file_names(held[0] if held else {}):
                if "/" in str(name):
                    raise ValueError(f"{file}: names the files {name!r}, which may lie outside its folder")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All JSON objects in a value, outermost first; also those in a text under `json`, which TFDS reads as JSON."""
    if isinstance(value, dict):
        yield value
        for key, part in value.items():
            yield from _objects(json.loads(part) if key == "json" and isinstance(part, str) else part)
    elif isinstance(value, list):
        for part in value:
            yield from _objects(part)


def _class_names(held: dict[str, Any]) -> list[Any]:
    """The classes that an object names for TFDS to import; `type` beside `content` is the form of TFDS before 4.4."""
    found = [held[key] for key in _CLASS_KEYS if key in held]
    return [*found, held["type"]] if "type" in held and "content" in held else found


def _file_names(info: dict[str, Any]) -> list[Any]:
    """Of what TFDS makes the names of files: that of the data set, those of its splits, and the patterns of these."""
    splits = info.get("splits")
    held = [split for split in splits if isinstance(split, dict)] if isinstance(splits, list) else []
    return [info.get("name", ""), *(split[key] for split in held for key in ("name", *_TEMPLATE_KEYS) if key in split)]
