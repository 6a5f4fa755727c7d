"""What the tests of binaries share."""

import functools
from collections.abc import Callable

import pytest

from tests.binary import Binary


@pytest.fixture(scope="module")
def binary_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Binary]:
    """The binary of a name; one of each."""
    return functools.cache(lambda name: Binary(name, tmp_path_factory.mktemp(name)))
