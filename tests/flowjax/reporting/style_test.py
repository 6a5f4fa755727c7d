"""The style of figures leaves the caller's settings alone."""

from flowjax.reporting import figures
from tests.flowjax.reporting.drawing import RISING, T


def test_style_leaves_the_callers_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.top1_figure(T, RISING, 0.3, None, {})
    assert dict(matplotlib.rcParams) == before
