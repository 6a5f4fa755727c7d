"""Any image data set of TensorFlow Datasets, without TensorFlow where TFDS allows it."""

import contextlib
import difflib
import functools
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from flowjax.data.cache import stamp
from flowjax.data.formats.decoding import EncodedRows, decoded
from flowjax.data.normalization import BYTES, IDENTITY
from flowjax.data.records import Progress, Records
from flowjax.data.sources.tfds_metadata import check_metadata
from flowjax.runtime import extras

FORMAT = "array_record"  # can be read at random, and without TensorFlow
_BATCH = 4096  # records that are looked through for labels at once


# Its parameters are more than eight: they are the settings of this source as a configuration names them, which open_records looks up.
def records(
    name: str = "",
    path: str = "",
    split: str = "train",
    data_dir: str = "",
    manual_dir: str = "",
    resolution: int = 0,
    normalize: str = "auto",
    cache_dir: str = "",
    prepare: bool = True,
    progress: Progress | None = None,
) -> Records:
    """The images of a TFDS data set, uint8 `[H, W, C]`, and their labels. It is downloaded and prepared if need be.

    Args:
      name: `cifar10`, `mnist`, `fashion_mnist`, `imagenet2012`, ..., also with a configuration and a version, `NAME/CONFIG:VERSION`.
      path: instead of a name: the folder of a prepared version.
      split: `train`, `test`, `train[:10%]`, ...
      data_dir: where data sets are prepared; "" is TFDS's own choice, ~/tensorflow_datasets.
      manual_dir: the folder with the files that must be fetched by hand. For fashion_mnist, the four IDX files; "" is where
        Debian's package dataset-fashion-mnist puts them.
      resolution: side of ADM's centre crop, for images that are not of one size; 0: as they are.
      normalize: "auto" scales by `x / 127.5 - 1` to [-1, 1]; "none" leaves grey levels.
      cache_dir: where decoded images are kept; "" is ~/.cache/flowjax; "none" decodes them anew each time.
      prepare: False: nothing is downloaded, and a data set that is not prepared yet is refused.

    Raises:
      ValueError: a name or split that TFDS does not know, a data set without images, or one that cannot be prepared here; metadata that
        name a class for TFDS to import.
      FileNotFoundError: files that must be fetched by hand are not there.
    """
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    with _quiet():
        builder = _prepared(name, path, data_dir, manual_dir, prepare)
    image_key, label_key = _features(builder)
    source = _source(builder, split)
    fetch = _Fetch(source, builder.info.features, image_key, label_key)
    channels = builder.info.features[image_key].shape[-1]
    whole_name = f"{builder.info.full_name}, {split}"
    rows = EncodedRows(fetch, len(source), "L" if channels == 1 else "RGB", resolution, lambda i: f"{whole_name}: image {i}")
    if cache_dir == "none":
        labels = None if label_key is None else np.concatenate([fetch.labels(start) for start in range(0, len(source), _BATCH)])
        images: Any = rows
    else:
        key = {"tfds": builder.info.full_name, "folder": str(builder.data_path), "split": split, "resolution": resolution}
        images, labels = decoded(rows, cache_dir, builder.info.name, key | {"n": len(source), "checksum": _stamp(builder)}, progress)
    names = None if label_key is None else builder.info.features[label_key].names
    info = {"source": f"TFDS {builder.info.full_name}", "path": str(builder.data_path), "split": split, "resolution": resolution or None}
    return Records(
        name=builder.info.name,
        rows=images,
        labels=labels,
        class_names=None if names is None else tuple(names),
        normalization=BYTES if normalize == "auto" else IDENTITY,
        value_range=(-1.0, 1.0) if normalize == "auto" else None,
        provenance=info,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's warnings, one for each folder that it is about to make."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Fetch:
    """Encoded images and labels of a data source of TFDS. No other feature is decoded: TFDS would decode images of any format."""

    def __init__(self, source: Any, features: Any, image_key: str, label_key: str | None):
        import tensorflow_datasets as tfds

        self._source, self._image, self._label = source, image_key, label_key
        self._features = tfds.features.FeaturesDict({key: features[key] for key in (image_key, label_key) if key is not None})
        self._decoders = {image_key: tfds.decode.SkipDecoding()}

    def __call__(self, index: np.ndarray) -> tuple[list[bytes], np.ndarray | None]:
        examples = [
            self._features.deserialize_example_np(record, decoders=self._decoders) for record in self._source.__getitems__(index.tolist())
        ]
        labels = None if self._label is None else np.array([example[self._label] for example in examples], np.int64)
        return [example[self._image] for example in examples], labels

    def labels(self, start: int) -> np.ndarray | None:
        return self(np.arange(start, min(start + _BATCH, len(self._source))))[1]


def _prepared(name: str, path: str, data_dir: str, manual_dir: str, prepare: bool) -> Any:
    """The builder of a data set that is prepared in a format which can be read here."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise extras.missing("a data set of TFDS", error, "data") from error
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    from flowjax.data.sources import tfds_builders

    if path:
        folder = pathlib.Path(path).expanduser()
        check_metadata(folder)
        try:
            builder = tfds.builder_from_directory(folder)
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError, ParseError) as error:
            raise ValueError(f"{folder}: TFDS cannot read this data set ({' '.join(str(error).split())[:200]})") from error
    else:
        plain = name.partition(":")[0].partition("/")[0]
        known = [*tfds.list_builders(with_community_datasets=False), tfds_builders.FashionMnist.name]
        if plain not in known:
            near = difflib.get_close_matches(plain, known, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"source={name!r}: neither a source of this project nor a data set of TFDS{meant}")
        own = plain == tfds_builders.FashionMnist.name
        make = tfds_builders.FashionMnist if own else functools.partial(tfds.builder, name)
        prepared = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / plain
        for info in prepared.rglob("dataset_info.json"):  # which TFDS reads in place of its own code, where a version is asked for
            check_metadata(info.parent)
        try:
            builder = make(data_dir=str(pathlib.Path(data_dir).expanduser()) if data_dir else None)
        except ImportError as error:
            raise _missing(error, name) from error
        if not builder.is_prepared():
            if not prepare:
                raise FileNotFoundError(
                    f"{name} is not prepared in {builder.data_path}, and what only a file names is not downloaded; "
                    f"prepare it by python -m experiments.inspect_data --config.data.source={name}"
                )
            _prepare(builder, name, manual_dir or (str(tfds_builders.DEBIAN_FOLDER) if own else ""))
    if builder.info.file_format.value != FORMAT and FORMAT not in {form.value for form in builder.info.available_file_formats()}:
        raise ValueError(
            f"{builder.data_path}: prepared as {builder.info.file_format.value}, which needs TensorFlow to read; "
            f"prepare it as {FORMAT} in another data_dir"
        )
    return builder


def _prepare(builder: Any, name: str, manual_dir: str) -> None:
    import tensorflow_datasets as tfds

    folder = pathlib.Path(manual_dir).expanduser() if manual_dir else None
    if folder is not None and not folder.is_dir():
        hint = "apt-get install dataset-fashion-mnist puts the files there" if name == "fashion_mnist" else "give the folder with its files"
        raise FileNotFoundError(f"manual_dir={folder}: no such folder; {hint}, or set --config.data.manual_dir=FOLDER")
    settings = tfds.download.DownloadConfig(manual_dir=None if folder is None else str(folder))
    try:
        builder.download_and_prepare(download_config=settings, file_format=FORMAT)
    except ImportError as error:
        raise _missing(error, name) from error
    except FileNotFoundError:
        raise
    except (AssertionError, RuntimeError, OSError, tfds.download.DownloadError) as error:  # what TFDS raises for what it is not given
        raise ValueError(f"TFDS could not prepare {name}: {' '.join(str(error).split())}") from error


def _missing(error: ImportError, name: str) -> ValueError:
    package = "tensorflow" if "tensorflow" in str(error) else error.name or str(error)
    return ValueError(f"TFDS needs the package {package} to prepare {name} (not to read it when it is): pip install {package}")


def _features(builder: Any) -> tuple[str, str | None]:
    """The names of the image and of the label."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    supervised = [key for key in builder.info.supervised_keys or () if isinstance(key, str)]
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    image = next((key for key in (*supervised, *images) if key in images), None)
    if image is None or features[image].np_dtype != np.uint8:
        raise ValueError(f"{builder.info.full_name}: has no uint8 image; its features are {', '.join(features)}")
    return image, next((key for key in (*supervised, *labels) if key in labels), None)


def _source(builder: Any, split: str) -> Any:
    """The records of a split, as they are stored."""
    import tensorflow_datasets as tfds

    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format=FORMAT)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"split={split!r}: {builder.info.name} has the splits {', '.join(builder.info.splits)}, and slices of them like train[:10%]"
        ) from error
    if not len(source):
        raise ValueError(f"split={split!r}: no sample of {builder.info.name} is in it")
    return source


def _stamp(builder: Any) -> str:
    folder = pathlib.Path(builder.data_path)
    return stamp(folder, sorted(folder.glob(f"*.{FORMAT}*")))
