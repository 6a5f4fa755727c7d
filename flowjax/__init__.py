"""flowjax: the exact oracle velocity of flow matching on your own data, and the two stages that it reveals.

    import flowjax

    oracle = flowjax.Oracle(images)                        # images [N, *shape]
    out = oracle(x_t, t)                                   # x_t [B, *shape], t in [0, 1]: 0 is noise, 1 is data
    found = flowjax.measure_turning_point(oracle)

Every name here is imported when it is first used.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from flowjax.runtime import extras

if TYPE_CHECKING:
    from flowjax.data import load, open_records
    from flowjax.fields import OracleField, external_field, guided, model_field
    from flowjax.models import LightningDiT, convert_lightningdit
    from flowjax.oracle import Oracle, OracleOutput
    from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving
    from flowjax.sampling import sample
    from flowjax.schedules import shift, uniform_timesteps
    from flowjax.stages import (
        TurningPoint,
        advice,
        covariance_spectrum,
        measure_turning_point,
        predict_turning_point,
        predict_turning_point_from_data,
    )

_HOME = {
    "Oracle": "oracle",
    "OracleOutput": "oracle",
    "Path": "path",
    "RectifiedFlow": "path",
    "Cosine": "path",
    "VariancePreserving": "path",
    "shift": "schedules",
    "uniform_timesteps": "schedules",
    "TurningPoint": "stages",
    "measure_turning_point": "stages",
    "predict_turning_point": "stages",
    "predict_turning_point_from_data": "stages",
    "covariance_spectrum": "stages",
    "advice": "stages",
    "OracleField": "fields",
    "external_field": "fields",
    "guided": "fields",
    "model_field": "fields",
    "sample": "sampling",
    "load": "data",
    "open_records": "data",
    "LightningDiT": "models",
    "convert_lightningdit": "models",
}
"""The module of each public name."""

__all__ = [
    "Cosine",
    "LightningDiT",
    "Oracle",
    "OracleField",
    "OracleOutput",
    "Path",
    "RectifiedFlow",
    "TurningPoint",
    "VariancePreserving",
    "advice",
    "convert_lightningdit",
    "covariance_spectrum",
    "external_field",
    "guided",
    "load",
    "measure_turning_point",
    "model_field",
    "open_records",
    "predict_turning_point",
    "predict_turning_point_from_data",
    "sample",
    "shift",
    "uniform_timesteps",
]

try:
    __version__ = version("flowjax-oracle")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowjax' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        return getattr(importlib.import_module(f"flowjax.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if extras.extra_of(error) is None:
            raise
        raise ImportError(str(extras.missing(f"flowjax.{name}", error)), name=error.name) from error


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
