"""A folder with one `.npy` for each sample, `NAME.npy` or `CLASS/NAME.npy`."""

import itertools
import os
import pathlib

from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.numpy_rows import NumpyRows
from flowjax.data.labels import LABEL_NAMES
from flowjax.data.normalization import array_scaling
from flowjax.data.records import Records, said
from flowjax.data.sources.image_files import SPLITS, files_below, files_in, folders_in
from flowjax.data.sources.labels_file import Labels, labels_in_file, labels_of_folders

_LABELS = "labels.npy"
_HEADERS = 32  # files that are inspected, to tell samples from arrays of samples


def is_array_folder(root: pathlib.Path) -> bool:
    """Whether a folder seems to have a `.npy` file for each sample: several of one shape, not called `x_train` or `labels`."""
    files = list(itertools.islice((file for file in files_below(root) if _is_sample(file)), _HEADERS))
    if len(files) < 2 or any(_is_of_many(file) for file in files):
        return False
    try:
        shapes = {(array.shape, array.dtype) for file in files for array in read_numpy(file).values()}
    except ValueError:
        return len(files) > 2  # the source says which of them is damaged
    return len(shapes) == 1


# A little over sixty lines, for its docstring and the parameters of a configuration.
def records(
    path: str | os.PathLike,
    labels: str | os.PathLike | None = None,
    label_array: str = "",
    normalize: str = "auto",
    multiplier: float = 0.0,
) -> Records:
    """The samples of a folder, in the order of their names; of classes first, if they lie in folders.

    Files are read when they are asked for.

    Args:
      path: a folder of `.npy` files, or of folders of them, one for each class.
      labels: a file, as `labels_file.labels_in_file`. None: the folders, or `labels.npy`.
      label_array: the column of a CSV file; "none": no labels.
      normalize, multiplier: as `flowjax.data.normalization.array_scaling`.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no `.npy` file; one that is damaged or of another shape than the first; labels that do not fit.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected one with a .npy file for each sample")
    classes = {folder.name: sorted(filter(_is_sample, files_below(folder))) for folder in folders_in(root)}
    classes = {name: files for name, files in classes.items() if files}
    flat = sorted(filter(_is_sample, files_in(root)))
    split = next((name for name in classes if name.lower() in SPLITS), None)
    if split is not None:
        raise ValueError(f"path={root}: {split}/ is a part of the data, no class; name one, --config.data.path={root / split}")
    files = flat or [file for found in classes.values() for file in found]
    if not files:
        raise ValueError(f"{root}: no .npy files there; expected one for each sample")
    rows = NumpyRows(lambda index: [files[i].read_bytes() for i in index], len(files), lambda i: str(files[i]))
    found = Labels()
    apart = pathlib.Path(labels).expanduser() if labels else root / _LABELS
    if label_array == "none":
        pass
    elif labels or apart.is_file():
        found = labels_in_file(apart, len(files), label_array, files=[file.relative_to(root).as_posix() for file in files])
    elif not flat and len(classes) > 1:
        found = labels_of_folders({name: len(held) for name, held in classes.items()})
    beside = sum(map(len, classes.values())) if flat else 0
    scaling, value_range = array_scaling(normalize, multiplier, rows.dtype)
    return Records(
        name=root.name,
        rows=rows,
        labels=found.labels,
        class_names=found.class_names,
        normalization=scaling,
        value_range=value_range,
        provenance={
            "source": "array_folder",
            "path": str(root),
            "taken_for": f"a folder with one .npy for each sample, {len(files):,} files in the order of their names",
            **said(
                label_mapping=found.mapping,
                not_read=f"{beside:,} .npy files in folders beside those of {root.name}/ itself" if beside else "",
            ),
        },
    )


def _is_sample(file: pathlib.Path) -> bool:
    return file.suffix.lower() == ".npy" and file.name != _LABELS


def _is_of_many(file: pathlib.Path) -> bool:
    """Whether a file is called like an array of many samples, or of their labels."""
    return file.stem.lower() in (*LABEL_NAMES, *SPLITS) or file.stem.lower().startswith(("x_", "y_", "train_", "test_"))
