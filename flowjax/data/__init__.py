"""Data sets: one function per source, each of which returns a `DataSet`."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from flowjax.data import arrays, digits, gaussian
from flowjax.data.record import DataSet

__all__ = ["SOURCES", "DataSet", "load"]

SOURCES: dict[str, Callable[..., DataSet]] = {"arrays": arrays.load, "digits": digits.load, "gaussian": gaussian.load}


def load(source: str, **settings: Any) -> DataSet:
    """Loads a data set from a source by name: `load("digits")`, `load("gaussian", n=1024, d=64, seed=0)`,
    `load("arrays", path="images.npy", labels="labels.npy", normalize="auto")`.

    Raises:
      ValueError: an unknown source, or settings that this source does not take or cannot do without; and whatever the
        source raises itself.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown data source {source!r}{_nearest(source, SOURCES)}; there are {', '.join(SOURCES)}")
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
    return SOURCES[source](**settings)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
