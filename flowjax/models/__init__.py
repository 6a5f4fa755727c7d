"""Velocity fields to train: LightningDiT in its published sizes and small ones, and its published checkpoints."""

from flowjax.models.convert import convert_lightningdit, export_lightningdit
from flowjax.models.flow import ExternalFlow, Flow
from flowjax.models.lightningdit import LightningDiT, parameter_count
from flowjax.models.sizes import SIZES, Architecture

__all__ = [
    "SIZES",
    "Architecture",
    "ExternalFlow",
    "Flow",
    "LightningDiT",
    "convert_lightningdit",
    "export_lightningdit",
    "parameter_count",
]
