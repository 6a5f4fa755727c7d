"""A bucket of an emulator of Google Cloud Storage, for the tests of what lies in one."""

from collections.abc import Iterator

import pytest

from flowjax.runtime import storage
from tests.emulator import emulator


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    with emulator():
        yield "gs://mine"


@pytest.fixture
def folder(gs: str, request: pytest.FixtureRequest) -> storage.Folder:
    return storage.located(f"{gs}/{request.node.originalname}")
