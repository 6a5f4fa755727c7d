"""Velocity fields to sample along: an oracle, a model of any framework, several of them one after the other in t, guidance.

A field is a pytree: pass it to a jitted function as an argument. What can be set (edges in t, scale, interval) are its leaves, so that a
sweep over them compiles once.
"""

from flowjax.fields.direction import Direction, check_direction, measure_direction
from flowjax.fields.external import ExternalField, external_field
from flowjax.fields.field import Field, Label, ModelField, OracleField, Staged, divergence, model_field, on_host, staged
from flowjax.fields.guidance import COORDINATES, AutoGuided, Channels, Guided, autoguided, convert_interval, guided

__all__ = [
    "COORDINATES",
    "AutoGuided",
    "Channels",
    "Direction",
    "ExternalField",
    "Field",
    "Guided",
    "Label",
    "ModelField",
    "OracleField",
    "Staged",
    "autoguided",
    "check_direction",
    "convert_interval",
    "divergence",
    "external_field",
    "guided",
    "measure_direction",
    "model_field",
    "on_host",
    "staged",
]
