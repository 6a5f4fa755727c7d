"""What the tests of binaries share: binaries, folders of trained models, latents."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from experiments import encode_latents
from experiments.configs import encode_latents as encode_presets
from tests.binary import Binary
from tests.experiments.in_process import summary_of
from tests.experiments.trained_models import leave, untrained

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="session")
def binary_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Binary]:
    """The binary of a name; one of each."""
    return functools.cache(lambda name: Binary(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folders of experiments.train as the binaries see them: models, and what they were trained on."""
    folder = tmp_path_factory.mktemp("train")
    leave(folder / "small", untrained(1), step=100)
    leave(folder / "large", untrained(2), step=200)
    leave(folder / "clothes", untrained(2), dataset="fashion_mnist")
    leave(folder / "other", untrained(1, (4, 4, 1)))
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of experiments.train as the binaries see it: a model, and what it was trained on."""
    return leave(tmp_path_factory.mktemp("train"), untrained())


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Latents of the digits, as `encode_latents` leaves them."""
    folder = tmp_path_factory.mktemp("encoded")
    settings = {"out": str(folder / "digits"), "shard_size": 500}
    summary = summary_of(encode_latents, encode_presets.get_config(), folder / "run", **settings)
    assert (summary["n"], summary["latent_shape"], summary["latent_d"]) == (1797, [4, 4, 2], 32)
    assert 16 < summary["psnr"] < 17.5
    assert (folder / "run" / "figures" / "strip.png").exists()
    return folder / "digits"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Page]":
    """A page of a headless Chromium."""
    from tests.browser import opened  # here: only slow tests need it

    with opened() as page:
        yield page
