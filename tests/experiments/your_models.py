"""A module as a user writes it: functions that make models, for `--config.model.factory`."""

from typing import Any

import torch
from sklearn.datasets import load_digits

from flowjax.fields import external_field
from flowjax.models import ExternalFlow
from tests.flowjax.torch_optimum import Optimum


def digits_by_heart(told: str = "noise_is_one", taken: str = "noise_is_one", **further: Any) -> ExternalFlow:
    """The optimum of digits, told the time in one way and taken to be told it in another."""
    found = load_digits()
    images = torch.tensor(found.images / 8 - 1)[:, None]
    network = Optimum(images, torch.tensor(found.target).int(), time=told, null_label=10)
    return ExternalFlow(external_field(network, time=taken, null_label=10, layout="NCHW"), (8, 8, 1), 10, **further)


def untrained(width: int = 4, classes: int = 10) -> ExternalFlow:
    """A convolution of random weights."""
    torch.manual_seed(width)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    field = external_field(lambda x, time, label: network(x), layout="NCHW")
    return ExternalFlow(field, (8, 8, 1), classes, value_range=(-1, 1), parameters=width)


def no_flow() -> str:
    """Not a model."""
    return "a model"
