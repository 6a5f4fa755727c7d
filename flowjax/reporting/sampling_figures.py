"""Figures of sampling experiments: copies against t_switch, one-step predictions against t."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from flowjax.analysis.decision_times import Settled
from flowjax.analysis.hybrid import Hybrid, Memorized
from flowjax.analysis.statistics import Curve, share
from flowjax.data import DataSet
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.reporting.strip import mosaic_figure
from flowjax.schedules import shown_time
from flowjax.stages import TurningPoint


@style.context()
def copies_figure(t_switch: Float[np.ndarray, " S"], seen: Memorized, target: TurningPoint, behaviour: TurningPoint) -> Figure:
    """The share of copies against t_switch, beside held-out data's, with both turning points."""
    figure, (axes,) = style.new_figure()
    shade_stages(axes, target.measured)
    shares = np.array(seen.shares())
    axes.axhspan(seen.baseline.low, seen.baseline.high, color=style.GREY, alpha=0.25, linewidth=0, label="held-out data, 95 %")
    draw_curve(axes, t_switch, Curve(*shares.T), style.MEASURED, "copies among samples, 95 % band")
    own = np.array([share(row == seen.own_row) for row in seen.row])
    draw_curve(axes, t_switch, Curve(*own.T), style.ALTERNATIVE, "nearest to the one the oracle reaches", linestyle="--")
    if behaviour.measured is not None:
        error = np.clip([[behaviour.measured - behaviour.ci_low], [behaviour.ci_high - behaviour.measured]], 0, None)  # type: ignore[operator]
        axes.errorbar(behaviour.measured, 0.5, xerr=error, color="black", marker="o", capsize=5, zorder=5, linestyle="none",
                      label=f"behaviour turns: {behaviour.measured:.3f}  [{behaviour.ci_low:.3f}, {behaviour.ci_high:.3f}]")  # fmt: skip
    if target.measured is not None:
        axes.axvline(target.measured, color=style.PREDICTED, linestyle="--", label=f"target turns: {shown_time(target.measured)}")
    time_axis(axes)
    axes.set_xlabel("t_switch   (0: the model alone, 1: the oracle alone)")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share of copies")
    axes.legend(loc="upper left" if (behaviour.measured or 1) > 0.5 else "lower right", fontsize=11)
    return figure


@style.context()
def distances_figure(t_switch: Float[np.ndarray, " S"], seen: Memorized, turning_point: float | None) -> Figure:
    """Distances to the nearest and to the own training sample: medians and the middle half."""
    figure, (axes,) = style.new_figure()
    shade_stages(axes, turning_point)
    for values, color, name in (
        (seen.own, style.ALTERNATIVE, "to the own training sample"),
        (seen.nearest, style.MEASURED, "to the nearest"),
    ):
        low, middle, high = np.percentile(values, [25, 50, 75], axis=1)
        draw_curve(axes, t_switch, Curve(middle, low, high), color, f"{name}: median, middle half")
    axes.axhline(1, color=style.GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="held-out data, mean")
    time_axis(axes)
    axes.set_xlabel("t_switch   (0: the model alone, 1: the oracle alone)")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("distance   (held-out data: 1)")
    axes.legend(loc="upper right")
    return figure


@style.context()
def switches_figure(found: Hybrid, seen: Memorized, training: DataSet, columns: int) -> Figure:
    """Rows of t_switch, columns of samples, each with its nearest training sample to its right."""
    rows = np.unique(np.linspace(0, len(found.t_switch) - 1, min(11, len(found.t_switch))).round().astype(int))
    count = min(columns, found.samples.shape[1])
    pairs = [
        np.stack([part for i in range(count) for part in (found.samples[row, i], training.data[seen.row[row, i]].astype(np.float32))])
        for row in rows
    ]
    assert training.value_range is not None
    figure, axes, (height, width, gap) = mosaic_figure(np.stack(pairs), training.value_range)
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(rows)) * (height + gap) + (height - 1) / 2, [f"{found.t_switch[row]:.2g}" for row in rows])
    axes.set_ylabel("t_switch")
    for i in range(1, count):
        axes.axvline(2 * i * (width + gap) - (gap + 1) / 2, color=style.GREY, linewidth=1)
    return figure


@style.context()
def settling_figure(
    t: Float[np.ndarray, " T"], curves: Mapping[str, Mapping[str, Curve]], settled: Mapping[str, Settled], turning_point: float | None
) -> Figure:
    """How much of layout and details is settled, against t: a panel for each field that was followed.

    Args:
      curves: field → "layout" and "details" → means with intervals.
      settled: field → when its layout is.
    """
    figure, panels = style.new_figure(10.5, 5.0, columns=len(curves), sharey=True)
    for axes, (name, parts) in zip(panels, curves.items(), strict=True):
        shade_stages(axes, turning_point)
        for (part, curve), color, line in zip(parts.items(), (style.MEASURED, style.PREDICTED), ("-", "--"), strict=True):
            draw_curve(axes, t, curve, color, part, linestyle=line)
        if np.isfinite(settled[name].t):
            axes.axvline(settled[name].t, color=style.GREY, linestyle=":", label=f"layout settled: {settled[name].t:.2f}")
        time_axis(axes)
        axes.set_title(name, pad=24)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="lower right")
    panels[0].set_ylabel("share settled")
    return figure
