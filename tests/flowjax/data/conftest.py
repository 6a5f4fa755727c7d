"""Images and an encoder of them, for the tests of encoding."""

import numpy as np
import pytest

from flowjax import data
from flowjax.data import Records
from flowjax.data.encoder import PatchPca
from flowjax.data.normalization import BYTES


@pytest.fixture(scope="module")
def images() -> Records:
    """60 digits, side by side with themselves shifted: [8, 16, 1]."""
    rows = data.open_records("digits").rows[:60]
    wide = np.concatenate([rows, np.roll(rows, 1, axis=1)], axis=2)
    return Records("wide", wide * 15, np.arange(60, dtype=np.int32) % 7, normalization=BYTES, value_range=(-1.0, 1.0))


@pytest.fixture(scope="module")
def pca(images) -> PatchPca:
    return PatchPca.fit(images, patch=4, channels=5)
