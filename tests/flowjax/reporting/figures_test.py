"""Figures for every shape of result."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from flowjax.reporting import figures
from tests.flowjax.reporting.drawing import RISING, T, drawn

ZERO = figures.Curve(0 * T, 0 * T, 0 * T)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("turning_point", [0.3, None])
def test_stage_figures_mark_the_turning_point_or_do_without(tmp_path, turning_point):
    interval = None if turning_point is None else (0.28, 0.33)
    top1 = figures.top1_figure(T, RISING, turning_point, interval, {"from the spectrum": 0.35, "from the data": None})
    shown = texts(top1)
    assert "from the spectrum: 0.350" in shown
    assert "from the data" not in shown
    assert ("measured: 0.300  [0.280, 0.330]" in shown) == (turning_point is not None)
    assert ("no crossing" in shown) == (turning_point is None)
    drawn(top1, tmp_path)
    for figure in (
        figures.gap_figure(T, RISING, RISING, turning_point),
        figures.entropy_figure(T, RISING, figures.Curve(*(1 + part for part in RISING)), 5.0, turning_point),
    ):
        assert ("navigation" in texts(figure)) == (turning_point is not None)
        figure.draw_without_rendering()


def test_gap_reaches_down_to_exact_zero(tmp_path):
    """Refinement's gap underflows to 0; a log axis would drop those points."""
    gap = np.where(T < 0.6, 30 * (1 - T), 0.0)
    figure = figures.gap_figure(T, figures.Curve(gap, gap - 1, gap + 1), figures.Curve(gap, gap, gap), 0.4)
    logarithmic = figure.axes[1]
    assert logarithmic.get_ylim()[0] == 0
    assert np.isfinite(logarithmic.transData.transform(np.stack([T, gap], 1))).all()
    drawn(figure, tmp_path)


def test_one_sample_gives_figures_too():
    figures.gap_figure(T, ZERO, ZERO, None).draw_without_rendering()
    figures.entropy_figure(T, ZERO, figures.Curve(1 + 0 * T, 1 + 0 * T, 1 + 0 * T), 0.0).draw_without_rendering()


def test_an_interval_beside_its_point_is_drawn():
    figures.top1_figure(T, RISING, 0.7, (0.71, 0.72), {}).draw_without_rendering()


def test_grid_draws_a_curve_and_its_points_for_each_dimension(tmp_path):
    points = [
        figures.GridPoint(d, n, 0.1, 0.11 if n > 64 else None, (0.1, 0.12) if n == 1024 else None)
        for d in (16, 64)
        for n in (64, 256, 1024)
    ]
    figure = figures.grid_figure(points)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 0]
    assert [list(line.get_xdata()) for line in lines[:3]] == [[64, 256, 1024], [256, 1024], [1024, 1024]]
    assert {"D = 16", "D = 64", "predicted"} <= set(texts(figure).splitlines())
    drawn(figure, tmp_path)


@pytest.mark.parametrize("count", [3, 60])
def test_classes_are_sorted_and_those_that_never_cross_say_so(tmp_path, count):
    points = [figures.ClassPoint(f"class {c}", 0.5 - c / 200, (0.1, 0.6), 0.3) for c in range(count)] + [figures.ClassPoint("lone", None)]
    figure = figures.classes_figure(points, overall=0.4)
    if count == 3:
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["class 2", "class 1", "class 0", "lone"]
        assert "never crosses" in texts(figure)
    drawn(figure, tmp_path)
    figures.classes_figure([figures.ClassPoint("lone", None)]).draw_without_rendering()
