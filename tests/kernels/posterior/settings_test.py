"""Block sizes are positive integers."""

import dataclasses

import pytest

from kernels.posterior import BlockSizes


@pytest.mark.parametrize("value", [0, -4, 2.0, True, "8", None])
@pytest.mark.parametrize("name", ["samples", "queries"])
def test_block_sizes_are_positive_integers(name, value):
    """ValueError that names the field and the value; frozen."""
    with pytest.raises(ValueError, match=f"BlockSizes.{name} must be a positive integer, got {value!r}"):
        BlockSizes(**{name: value})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(BlockSizes(), name, 1)
