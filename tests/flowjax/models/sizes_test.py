"""The published sizes of LightningDiT."""

import pytest
from flax import nnx

from flowjax.models import SIZES, Architecture, LightningDiT, parameter_count


@pytest.mark.parametrize(("size", "millions"), [("XL/1", 675.26), ("L/1", 458.15), ("B/1", 130.56), ("S/1", 32.99)])
def test_published_sizes_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    """The published count, 675.26M for XL/1, includes the fixed position vectors."""
    model = nnx.eval_shape(lambda: LightningDiT(Architecture.named(size, (16, 16, 32), 1000), rngs=nnx.Rngs(0)))
    assert (parameter_count(model) + 256 * model.shape.width) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("size", "shape", "named"),
    [("XXL/1", (16, 16, 4), "XXL/1"), ("B", (16, 16, 4), "SIZE/PATCH"), ("B/3", (16, 16, 4), "patch"), ("B/1", (64,), r"\[H, W, C\]")],
)
def test_unknown_sizes_and_patches_that_do_not_divide_are_refused(size: str, shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Architecture.named(size, shape, 10)


def test_every_named_size_has_heads_that_rotate() -> None:
    for depth, width, heads in SIZES.values():
        assert Architecture((8, 8, 1), 1, depth, width, heads, 10).head_dim % 4 == 0
