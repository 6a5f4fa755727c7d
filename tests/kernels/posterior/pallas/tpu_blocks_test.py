"""Block sizes of the fused TPU kernel: defaults for every size, and what is refused."""

import jax.numpy as jnp
import pytest

from kernels.posterior.pallas.tpu_blocks import GENERATIONS, TpuBlocks, default_blocks, parts_of


@pytest.mark.parametrize(
    ("field", "value"), [("queries", 48), ("queries", 0), ("samples", 100), ("columns", -128), ("sum_tile", 1), ("samples", True)]
)
def test_bad_blocks_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be a positive multiple of \d+, got {value}"):
        TpuBlocks(**{"queries": 64, "samples": 256} | {field: value})


@pytest.mark.parametrize("generation", GENERATIONS.values(), ids=list(GENERATIONS))
@pytest.mark.parametrize("precision", ["default", "high", "highest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_defaults_exist_for_every_size(generation, precision, dtype):
    """From one number to an image of 256 x 256 x 3; beyond VMEM D is split."""
    parts = parts_of(jnp.dtype(dtype), False, precision)
    for d in (1, 784) if generation.name == "v4" else (1, 784, 3072, 8192, 49152):
        for b in (1, 256, 1024, 5000):
            blocks = default_blocks(generation, b, d, jnp.dtype(dtype), parts)
            assert 32 <= blocks.queries <= 1024
