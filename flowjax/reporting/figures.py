"""The figures of the oracle sweep. Each takes plain arrays and returns a Matplotlib figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from flowjax.analysis.data_sweep import ClassPoint
from flowjax.analysis.statistics import Curve
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.schedules import shown_time

Interval = tuple[float, float] | None


class GridPoint(NamedTuple):
    """The turning point at one D and N. A point with no measurement lends its prediction to the curve alone."""

    d: int
    n: int
    predicted: float | None
    measured: float | None = None
    interval: Interval = None


@style.context()
def gap_figure(t: Float[np.ndarray, " T"], monte_carlo: Curve, posterior: Curve, turning_point: float | None) -> Figure:
    """E‖u_cond - u*‖² against t, drawn twice: on a linear scale, where the stages show, and on a logarithmic one, where the tail does.

    Args:
      t: `[T]`.
      monte_carlo: squared distance from the oracle to the CFM target of each query's own pair.
      posterior: the same expectation as A_t² tr Cov[x_1 | x_t]. Both in squared units of the data, summed over D.
      turning_point: None leaves the stages unmarked.
    """
    figure, (linear, logarithmic) = style.new_figure(10.5, 5.0, columns=2)
    for axes in (linear, logarithmic):
        shade_stages(axes, turning_point)
        draw_curve(axes, t, monte_carlo, style.ALTERNATIVE, "Monte Carlo", linestyle="--")
        draw_curve(axes, t, posterior, style.MEASURED, "posterior variance")
        time_axis(axes)
    top = float(max(monte_carlo.high.max(), posterior.high.max())) or 1.0  # N = 1 has no gap at all
    linear.set_ylim(0, 1.08 * top)
    linear.set_ylabel(r"$\mathrm{E}\,\Vert u_\mathrm{cond} - u^*\Vert^2$   (data units²)")
    # Far into refinement the gap is exactly zero: below a millionth of its greatest value the scale is linear, down to 0.
    floor = 10.0 ** np.floor(np.log10(top * 1e-6))
    logarithmic.set_yscale("symlog", linthresh=floor, linscale=0.6)
    logarithmic.set_ylim(0, 3 * top)
    logarithmic.yaxis.set_major_locator(FixedLocator([0, *floor * 10.0 ** np.arange(0, 9, 2)]))
    logarithmic.yaxis.set_minor_locator(NullLocator())
    logarithmic.set_ylabel("the same, logarithmic")
    logarithmic.legend(loc="lower left", title="mean, 95 % band", title_fontsize=13)  # always empty there
    return figure


@style.context()
def top1_figure(
    t: Float[np.ndarray, " T"], top1: Curve, measured: float | None, interval: Interval, predictions: Mapping[str, float | None]
) -> Figure:
    """The mean weight of the likeliest sample against t, the 0.5 that it crosses, and the turning point: measured and predicted.

    Args:
      t: `[T]`.
      top1: mean of max_i γ_i, in [0, 1].
      measured: the t of the crossing, `interval` its 95 % interval; None if there is none.
      predictions: label → predicted turning point.
    """
    figure, (axes,) = style.new_figure()
    shade_stages(axes, measured)
    axes.axhline(0.5, color=style.GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    draw_curve(axes, t, top1, style.MEASURED, "mean over queries, 95 % band")
    looks = itertools.cycle(zip(style.CYCLE[1:4], ("--", ":", "-."), strict=True))
    for (color, linestyle), (label, value) in zip(looks, predictions.items(), strict=False):
        if value is not None:
            axes.axvline(value, color=color, linestyle=linestyle, label=f"{label}: {shown_time(value)}")
    if measured is None:
        axes.text(0.5, 0.51, "no crossing", ha="center", va="bottom", color=style.GREY)
    else:
        span = "" if interval is None else f"  [{shown_time(interval[0])}, {shown_time(interval[1])}]"
        error = None if interval is None else np.clip([[measured - interval[0]], [interval[1] - measured]], 0, None)
        axes.errorbar(measured, 0.5, xerr=error, color="black", marker="o", capsize=5, zorder=5, linestyle="none",
                      label=f"measured: {shown_time(measured)}{span}")  # fmt: skip
    time_axis(axes)
    axes.set_ylim(0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 5), ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_ylabel("weight of the likeliest sample")
    axes.legend(loc="upper left" if measured is not None and measured > 0.6 else "lower right")
    return figure


@style.context()
def entropy_figure(
    t: Float[np.ndarray, " T"],
    entropy: Curve,
    effective_samples: Curve,
    log_n: float,
    turning_point: float | None = None,
    marks: Mapping[str, float | None] | None = None,
) -> Figure:
    """How many samples still compete, against t: entropy of the posterior (nats) and effective samples 1 / Σ γ_i².

    Args:
      t: `[T]`.
      entropy, effective_samples: means over queries.
      log_n: the natural logarithm of N; both panels mark its level, the most that can be.
      turning_point: None leaves the stages unmarked.
      marks: name → other times to mark.
    """
    figure, (left, right) = style.new_figure(10.5, 5.0, columns=2)
    for axes, curve, most, named, label in (
        (left, entropy, log_n, "all alike: log N", "entropy of the weights (nats)"),
        (right, effective_samples, np.exp(log_n), "all alike: N", "effective samples  1 / Σγ²"),
    ):
        shade_stages(axes, turning_point)
        axes.axhline(most, color=style.GREY, linewidth=1.2, linestyle=(0, (4, 3)), label=named)
        draw_curve(axes, t, curve, style.MEASURED, "mean, 95 % band")
        for (name, value), color, line in zip((marks or {}).items(), style.CYCLE[1:], ("--", ":", "-."), strict=False):
            if value is not None:
                axes.axvline(value, color=color, linestyle=line, label=f"{name}: {shown_time(value)}")
        time_axis(axes)
        axes.set_ylabel(label)
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.95))
    left.set_ylim(0, log_n * 1.06 if log_n > 0 else 1)
    right.set_yscale("log")
    right.set_ylim(0.9, max(10.0, 1.5 * np.exp(log_n)))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


@style.context()
def grid_figure(points: Sequence[GridPoint]) -> Figure:
    """The turning point against N, a line per D: measured points, with intervals where there are any, on predicted curves."""
    figure, (axes,) = style.new_figure(9.6, 5.6)
    dimensions = sorted({point.d for point in points})
    for index, d in enumerate(dimensions):
        color, marker = style.CYCLE[index % len(style.CYCLE)], style.MARKERS[index % len(style.MARKERS)]
        own = sorted((point for point in points if point.d == d), key=lambda point: point.n)
        curve = [(point.n, point.predicted) for point in own if point.predicted is not None]
        axes.plot([n for n, _ in curve], [value for _, value in curve], color=color, linewidth=2)
        measured = [(point.n, point.measured) for point in own if point.measured is not None]
        axes.plot(
            [n for n, _ in measured], [value for _, value in measured], color=color, marker=marker, linestyle="none", label=f"D = {d:,}"
        )
        for point in own:
            if point.interval is not None:
                axes.plot([point.n, point.n], point.interval, color=color, linewidth=1.6, marker="_", markersize=7)
    sizes = sorted({point.n for point in points if point.measured is not None} or {point.n for point in points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=0 if len(sizes) < 8 else 45)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("samples N")
    axes.set_ylabel("turning point t*")
    axes.plot([], [], color=style.GREY, linewidth=2, label="predicted")
    axes.plot([], [], color=style.GREY, marker="o", linestyle="none", label="measured, 95 %")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@style.context()
def classes_figure(points: Sequence[ClassPoint], overall: float | None = None) -> Figure:
    """A dot per class at its measured turning point, with its interval and prediction; sorted, the earliest on top."""
    ordered = sorted(points, key=lambda point: (point.measured is None, point.measured or 0.0))
    named = len(ordered) <= 40  # more names than that cannot be read
    figure, (axes,) = style.new_figure(9.0, 2.0 + 0.38 * len(ordered) if named else 9.0)
    for row, point in enumerate(ordered):
        if point.interval is not None:
            axes.plot(point.interval, [row, row], color=style.MEASURED, alpha=0.45 if named else 0.2, linewidth=2.6 if named else 1.0)
    measured = [(point.measured, row) for row, point in enumerate(ordered) if point.measured is not None]
    predicted = [(point.predicted, row) for row, point in enumerate(ordered) if point.predicted is not None]
    size = 8 if named else 3
    if measured:
        axes.plot(*zip(*measured, strict=True), markersize=size, color=style.MEASURED, marker="o", linestyle="none", label="measured, 95 %")
    if predicted:
        hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.8}  # so that the dot beneath it stays in sight
        axes.plot(
            *zip(*predicted, strict=True), markersize=size, color=style.PREDICTED, marker="D", linestyle="none", label="predicted", **hollow
        )
    if overall is not None:
        axes.axvline(overall, color=style.GREY, linestyle=(0, (4, 3)), linewidth=1.5, label="all classes pooled")
    for row in range(len(measured), len(ordered)) if named else ():
        axes.text(0.01, row, "never crosses", transform=axes.get_yaxis_transform(), color=style.GREY, va="center", fontsize=13)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_yticks(range(len(ordered)) if named else [], [style.literal(point.name) for point in ordered] if named else [])
    axes.set_ylabel("class" if named else f"{len(ordered):,} classes, the earliest on top")
    axes.set_xlabel("turning point t*")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=3)
    return figure
