"""Figures of sampling resumed from noised samples: how faithful it is to them, and what it looks like."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from flowjax.analysis.resumed import Faithful
from flowjax.analysis.statistics import Curve, Share, mean_curve, share
from flowjax.data import DataSet
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.reporting.strip import mosaic_figure
from flowjax.stages import TurningPoint

MOST_ROWS = 9
"""Of samples in the picture."""


@style.context()
def faithfulness_figure(
    t_switch: Float[np.ndarray, " S"], found: Mapping[str, Faithful], target: TurningPoint, faithful: TurningPoint, heldout_copies: Share
) -> Figure:
    """The share of samples nearest to their original, and distances to it and to the nearest other training sample, against t_switch.

    Args:
      found: what the originals are, "held-out" among them → measured.
      faithful: where the share of held-out originals crosses one half.
    """
    figure, (shares, distances) = style.new_figure(12.5, 5.4, columns=2)
    for axes in (shares, distances):
        shade_stages(axes, target.measured)
        time_axis(axes)
        axes.set_xlabel("t_switch   (0: from noise, 1: the original)")
    for (name, part), color in zip(found.items(), (style.MEASURED, style.ALTERNATIVE), strict=False):
        draw_curve(shares, t_switch, Curve(*np.array(part.shares()).T), color, f"nearest to the original: {name}")
        draw_curve(distances, t_switch, mean_curve(part.own), color, f"to the original: {name}")
        draw_curve(distances, t_switch, mean_curve(part.other), color, "to the nearest other", linestyle="--")
    copies = np.array([share(row) for row in found["held-out"].copies])
    draw_curve(shares, t_switch, Curve(*copies.T), style.PREDICTED, "copies of training samples", linestyle=":")
    shares.axhspan(
        heldout_copies.low, heldout_copies.high, color=style.GREY, alpha=0.25, linewidth=0, label="... among held-out data, 95 %"
    )
    if faithful.measured is not None:
        error = np.clip([[faithful.measured - faithful.ci_low], [faithful.ci_high - faithful.measured]], 0, None)  # type: ignore[operator]
        shares.errorbar(faithful.measured, 0.5, xerr=error, color="black", marker="o", capsize=5, zorder=5, linestyle="none",
                        label=f"faithful from {faithful.measured:.2f}")  # fmt: skip
    shares.set_ylim(0, 1.02)
    shares.set_ylabel("share of samples")
    shares.legend(loc="upper left", fontsize=10)
    distances.set_ylim(bottom=0)
    distances.set_ylabel("distance   (held-out data: 1)")
    distances.legend(loc="lower left", fontsize=11)
    return figure


@style.context()
def resumed_figure(
    t_switch: Float[np.ndarray, " S"],
    originals: Float[np.ndarray, "B *shape"],
    samples: Float[np.ndarray, "S B *shape"],
    found: Faithful,
    training: DataSet,
    columns: int,
) -> Figure:
    """Originals above; below, rows of t_switch with the samples resumed from them, each with its nearest training sample to its right."""
    rows = np.unique(np.linspace(0, len(t_switch) - 1, min(MOST_ROWS, len(t_switch))).round().astype(int))
    count = min(columns, samples.shape[1])
    blank = np.full_like(originals[0], np.nan)
    top = np.stack([part for original in originals[:count] for part in (original, blank)])
    pairs = [
        np.stack([part for i in range(count) for part in (samples[row, i], training.data[found.row[row, i]].astype(np.float32))])
        for row in rows
    ]
    assert training.value_range is not None
    figure, axes, (height, width, gap) = mosaic_figure(np.stack([top, *pairs]), training.value_range)
    axes.set_xticks([])
    names = ["original", *(f"{t_switch[row]:.2g}" for row in rows)]
    axes.set_yticks(np.arange(len(names)) * (height + gap) + (height - 1) / 2, names)
    axes.set_ylabel("t_switch")
    axes.axhline(height + (gap - 1) / 2, color=style.VERMILION, linewidth=2)
    for i in range(1, count):
        axes.axvline(2 * i * (width + gap) - (gap + 1) / 2, color=style.GREY, linewidth=1)
    return figure
