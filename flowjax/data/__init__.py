"""Data sets: one function per source, each of which returns `Records`; `load` makes a `DataSet` in memory of them."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flowjax.data.dataset import DataSet
from flowjax.data.records import Progress, Records
from flowjax.data.sources import array_folder, arrays, digits, gaussian, image_folder, latents, table, tfds_images, webdataset

__all__ = ["SOURCES", "DataSet", "Records", "load", "open_records"]

SOURCES: dict[str, Callable[..., Records]] = {
    "array_folder": array_folder.records,
    "arrays": arrays.records,
    "digits": digits.records,
    "gaussian": gaussian.records,
    "images": image_folder.records,
    "latents": latents.records,
    "repa": latents.repa_records,
    "table": table.records,
    "tfds": tfds_images.records,
    "webdataset": webdataset.records,
}


def load(source: str, *, flips: bool = False, dtype: str = "float32", **settings: Any) -> DataSet:
    """Loads a data set into memory, from a source by name: `load("digits")`, `load("gaussian", n=1024, d=64, seed=0)`,
    `load("arrays", path="images.npy", labels="labels.npy", normalize="auto")`.

    Args:
      source, settings: as in `open_records`.
      flips, dtype: as in `Records.load`.

    Raises:
      ValueError: as both.

    Examples:
      >>> digits = load("digits")
      >>> digits.data.shape, digits.labels.shape
      ((1797, 8, 8, 1), (1797,))
    """
    return open_records(source, **settings).load(flips=flips, dtype=dtype)


def open_records(
    source: str,
    *,
    classes: Sequence[int] = (),
    max_samples: int = 0,
    layout: str = "",
    noise_scale: float = 1.0,
    progress: Progress | None = None,
    **settings: Any,
) -> Records:
    """The samples of a source by name, as stored; those that lie on disk are read when they are asked for.

    Args:
      source: one of `SOURCES`, or the name of a TFDS data set, `cifar10`.
      classes, max_samples: as in `Records.subset`.
      layout: as in `Records.in_layout`.
      noise_scale: as in `Records.for_noise`.
      progress: makes a progress bar of a few words; None: none is shown.
      settings: what the source takes; its function says what they mean.

    Raises:
      ValueError: an unknown source, or settings that this source does not take or cannot do without; and whatever the
        source raises itself.
    """
    if source not in SOURCES:
        near = _nearest(source, SOURCES)
        if near:
            raise ValueError(f"unknown data source {source!r}{near}; there are {', '.join(SOURCES)}, and the names of TFDS")
        source, settings = "tfds", {"name": source, **settings}
    signature = inspect.signature(SOURCES[source])
    for setting in settings:
        if setting not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise ValueError(
                f"data source {source!r} has no setting {setting!r}{_nearest(setting, signature.parameters)}; it takes {known}"
            )
    missing = [p.name for p in signature.parameters.values() if p.default is p.empty and settings.get(p.name) in (None, "")]
    if missing:
        raise ValueError(f"data source {source!r} needs {', '.join(missing)}")
    if progress is not None and "progress" in signature.parameters:
        settings["progress"] = progress
    return SOURCES[source](**settings).in_layout(layout).subset(classes, max_samples).for_noise(noise_scale)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
