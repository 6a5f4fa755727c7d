"""When predictions settle: layout first, details later."""

import numpy as np
import pytest
import scipy.fft

from flowjax.analysis.decision_times import settled_at, settling


@pytest.mark.parametrize("shape", [(16, 16, 2), (64,)])
def test_layout_is_the_low_frequencies_and_details_the_others(shape: tuple[int, ...]) -> None:
    """Predictions whose low frequencies arrive at once and whose high ones come in equal steps."""
    rng = np.random.default_rng(0)
    axes = (0, 1) if len(shape) == 3 else (0,)
    spectrum = rng.standard_normal(shape)
    radius = np.sqrt(sum((np.arange(shape[a]).reshape([-1 if b == a else 1 for b in range(len(shape))]) / shape[a]) ** 2 for a in axes))
    low = np.broadcast_to(radius < 0.25, shape)
    end = scipy.fft.idctn(spectrum, axes=axes, norm="ortho")
    parts = []
    for done_low, done_high in ((0, 0), (1, 0.5), (1, 1)):
        parts.append(scipy.fft.idctn(np.where(low, done_low, done_high) * spectrum, axes=axes, norm="ortho"))
    found = settling(np.stack(parts)[:, None], end[None])
    np.testing.assert_allclose(found.layout[:, 0], [0, 1, 1], atol=1e-9)
    np.testing.assert_allclose(found.details[:, 0], [0, 0.75, 1], atol=1e-9)


def test_settled_is_where_the_mean_crosses_for_good() -> None:
    t = np.array([0, 0.25, 0.5, 0.75, 1])
    share = np.array([0, 0.95, 0.5, 0.9, 1.0])[:, None] + np.zeros((5, 6))
    assert settled_at(t, share, 0.7).t == pytest.approx(0.625)
    assert settled_at(t, share, 0.95)[:3] == pytest.approx((0.875,) * 3)
    assert settled_at(t, share * 0.5, 0.9).t == np.inf
    assert settled_at(t, share + 1, 0.9).t == 0
    with pytest.raises(ValueError, match=r"level = 1\.0"):
        settled_at(t, share, 1.0)
