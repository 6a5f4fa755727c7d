"""Figures of what analytic fields explain of a model: shares against t, where the oracle stops explaining, and predictions side by side."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from flowjax.analysis.analytic_comparison import Explained
from flowjax.analysis.statistics import Interval
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.reporting.strip import mosaic_figure
from flowjax.schedules import shown_time
from flowjax.stages import TurningPoint

LINES = ("-", "--", ":", "-.")


@style.context()
def explained_figure(
    t: Float[np.ndarray, " T"], found: Mapping[str, Explained], turning_point: float | None, edges: tuple[float, float]
) -> Figure:
    """R² against t, a panel for each kind of queries, a line for each field; the first is the oracle, in black.

    Args:
      edges: of the stages, dotted.
    """
    figure, panels = style.new_figure(13.0, 5.8, columns=len(found), sharey=True)
    lowest = min(float(curve.low.min()) for part in found.values() for curve in part.share.values())
    for axes, (kind, part) in zip(panels, found.items(), strict=True):
        shade_stages(axes, turning_point)
        for edge in edges:
            axes.axvline(edge, color=style.GREY, linestyle=":", linewidth=1.2)
        looks = zip(itertools.cycle((style.BLACK, *style.CYCLE[:-1])), itertools.cycle(LINES), strict=False)  # no field is left out
        for (name, curve), (color, line) in zip(part.share.items(), looks, strict=False):
            draw_curve(axes, t, curve, color, name, linestyle=line)
        until = part.oracle_until
        if until is not None:
            level = float(np.interp(until.value, t, next(iter(part.share.values())).mean))
            error = np.clip([[until.value - until.low], [until.high - until.value]], 0, None)
            axes.errorbar(until.value, level, xerr=error, color="black", marker="o", capsize=5, zorder=5, linestyle="none",
                          label=f"oracle until {shown_time(until.value)}")  # fmt: skip
        time_axis(axes)
        axes.set_ylim(max(-0.5, lowest - 0.03), 1.005)
        axes.set_title(f"{kind} queries", pad=24)
    panels[0].set_ylabel("share of the variance explained (R²)")
    panels[0].legend(loc="lower left", fontsize=11)
    return figure


@style.context()
def places_figure(found: Sequence[tuple[str, TurningPoint, Interval | None]]) -> Figure:
    """Where the oracle stops explaining each model, against the turning point of its training data, with 95 %."""
    figure, (axes,) = style.new_figure(9.6, 5.6)
    ends = []
    for (name, turn, until), color, marker in zip(found, itertools.cycle(style.CYCLE), itertools.cycle(style.MARKERS), strict=False):
        if turn.measured is None or until is None:
            continue
        assert turn.ci_low is not None
        assert turn.ci_high is not None
        across = np.clip([[turn.measured - turn.ci_low], [turn.ci_high - turn.measured]], 0, None)
        up = np.clip([[until.value - until.low], [until.high - until.value]], 0, None)
        axes.errorbar(turn.measured, until.value, xerr=across, yerr=up, color=color, marker=marker, capsize=4, linestyle="none", label=name)
        ends += [turn.measured, until.low, until.high]
    if ends:
        span = (max(0.0, min(ends) - 0.05), min(1.0, max(ends) + 0.05))
        axes.plot(span, span, color=style.GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="the same t")
    axes.set_xlabel("turning point of the training data")
    axes.set_ylabel("oracle explains until t")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@style.context()
def predictions_figure(
    t: Float[np.ndarray, " K"],
    rows: Mapping[str, Float[np.ndarray, "K *shape"]],
    value_range: tuple[float, float],
    turning_point: float | None,
) -> Figure:
    """A row for x_t, the model and each field; a column for each t."""
    figure, axes, (height, width, gap) = mosaic_figure(np.stack(list(rows.values())), value_range)
    axes.set_xticks(np.arange(len(t)) * (width + gap) + (width - 1) / 2, [f"{value:.2g}" for value in t])
    axes.set_yticks(np.arange(len(rows)) * (height + gap) + (height - 1) / 2, list(rows))
    axes.set_xlabel("t   (0: noise, 1: data)")
    if turning_point is not None:
        axes.axvline(np.searchsorted(t, turning_point) * (width + gap) - (gap + 1) / 2, color=style.VERMILION, linewidth=2.5)
    return figure
