"""Figures of how the two stages answer to settings: shift, guidance interval, capacity, training time, latent space."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from flowjax.analysis.paired_scores import PairedScores
from flowjax.analysis.statistics import Curve, Interval
from flowjax.metrics.loss_by_t import LossByTime
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.stages import Recommendation


@style.context()
def shift_figure(
    shifts: Float[np.ndarray, " S"], contests: Mapping[int, PairedScores], advice: Recommendation, published: Mapping[float, float]
) -> Figure:
    """Fréchet distance against the shift: a line for each number of steps, with the advice and its range; and as published.

    Bands: 95 % of the difference from s = 1, over seeds.

    Args:
      shifts: `[S]`, 1 among them.
      contests: number of steps → scores `[S, seeds]`.
      published: shift → FID.
    """
    figure, (own, theirs) = style.new_figure(11.5, 5.4, columns=2, width_ratios=(2, 1))
    if advice.value is not None and advice.range is not None:
        own.axvspan(*advice.range, color=style.NAVIGATION, linewidth=0, zorder=0)
        own.axvline(advice.value, color=style.PREDICTED, linestyle="--", label=f"advised: {advice.value:.2f}, its range shaded")
    for (n, paired), color, marker in zip(contests.items(), (style.BLUE, style.GREEN, style.PURPLE), style.MARKERS, strict=False):
        scores = np.array([paired.beside(i, int(np.flatnonzero(shifts == 1)[0])) for i in range(len(shifts))])
        draw_curve(own, shifts, Curve(*scores.T), color, f"{n} steps")
        best = paired.best
        own.plot(shifts[best], scores[best, 0], color=color, marker=marker, linestyle="none", label=f"best of these: {shifts[best]:.2g}")
    theirs.plot(*zip(*sorted(published.items()), strict=True), color=style.GREY, marker="o", label="paper, 50 steps")
    for axes, values in ((own, shifts), (theirs, np.array(sorted(published)))):
        _log_ticks(axes, values)
        axes.set_xlabel("timestep shift s")
        axes.legend(loc="best")
    own.set_ylabel("Fréchet distance, classifier features")
    theirs.set_ylabel("gFID, ImageNet 256²")
    return figure


def _log_ticks(axes: Axes, values: Float[np.ndarray, " S"]) -> None:
    """A logarithmic axis with ticks at round numbers."""
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if values.min() * 0.9 <= tick <= values.max() * 1.1]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


@style.context()
def interval_map(
    edges: Float[np.ndarray, " E"],
    values: Float[np.ndarray, "E E"],
    none: float,
    advice: tuple[float, float] | None,
    turning_point: float | None,
) -> Figure:
    """The Fréchet distance of each guidance interval over that without guidance: its start across, its end upwards.

    Args:
      edges: `[E]`, rising.
      values: `[start, end]`, NaN where there is no such interval.
      none: without guidance: the white of the colours.
      advice: the advised interval.
    """
    figure, (axes,) = style.new_figure(8.6, 7.0)
    shown = np.log2(values / none)
    most = max(float(np.nanmax(np.abs(shown))), 1e-3)
    starts, ends = edges[:-1], edges[1:]
    picture = axes.imshow(shown[:-1, 1:].T, origin="lower", cmap="RdBu_r", vmin=-most, vmax=most, aspect="equal")
    for i in range(len(starts)):
        for j in range(len(ends)):
            if np.isfinite(values[i, j + 1]):
                dark = abs(shown[i, j + 1]) > 0.6 * most
                behind = {"facecolor": picture.to_rgba(shown[i, j + 1]), "edgecolor": "none", "pad": 2}  # no line runs through a number
                number = f"{values[i, j + 1]:.3g}"
                axes.text(i, j, number, ha="center", va="center", fontsize=12, color="white" if dark else "black", bbox=behind)
    best = np.unravel_index(np.nanargmin(values), values.shape)
    axes.add_patch(Rectangle((best[0] - 0.5, best[1] - 1.5), 1, 1, fill=False, edgecolor=style.GREEN, linewidth=3, label="best of these"))
    place = lambda t, kept: float(np.interp(t, kept, np.arange(len(kept))))  # noqa: E731
    if turning_point is not None and turning_point < starts[-1]:
        axes.axvline(place(turning_point, starts), color=style.GREY, linestyle=":", label=f"turning point: {turning_point:.2f}")
    if advice is not None:
        axes.plot(place(advice[0], starts), place(advice[1], ends), color=style.ORANGE, markeredgecolor="black", marker="*", markersize=20,
                  linestyle="none", label=f"advised: [{advice[0]:.2f}, {advice[1]:.2f}]")  # fmt: skip
    axes.set_xticks(range(len(starts)), [f"{t:g}" for t in starts])
    axes.set_yticks(range(len(ends)), [f"{t:g}" for t in ends])
    axes.grid(False)
    axes.set_xlabel("guidance begins at t")
    axes.set_ylabel("and ends at t")
    axes.legend(loc="lower right")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8)
    bar.set_label(f"log₂ of distance over {none:.3g}, that of none")
    return figure


@style.context()
def intervals_figure(names: Sequence[str], paired: PairedScores, none: int, published: Mapping[str, float]) -> Figure:
    """The Fréchet distance with each guidance interval: here, with 95 % of the difference from none over seeds, and as published."""
    figure, (own, theirs) = style.new_figure(11.5, 2.0 + 0.42 * len(names), columns=2, sharey=True, width_ratios=(2, 1))
    scores = np.array([paired.beside(i, none) for i in range(len(names))])
    rows = np.arange(len(names))
    error = np.clip([scores[:, 0] - scores[:, 1], scores[:, 2] - scores[:, 0]], 0, None)
    own.errorbar(scores[:, 0], rows, xerr=error, color=style.MEASURED, marker="o", capsize=4, linestyle="none")
    own.axvline(scores[none, 0], color=style.GREY, linestyle=(0, (4, 3)))
    own.set_xscale("log")
    own.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    own.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    own.xaxis.set_minor_formatter(NullFormatter())
    own.set_yticks(rows, names)
    own.set_ylim(len(names) - 0.4, -0.6)
    own.set_xlabel("Fréchet distance, classifier features")
    known = [(published[name], row) for row, name in enumerate(names) if name in published]
    theirs.plot(*zip(*known, strict=True), color=style.GREY, marker="s", linestyle="none")
    theirs.set_xlabel("paper: gFID,\nImageNet 256²")
    return figure


@style.context()
def errors_figure(curves: Mapping[str, Mapping[str, LossByTime]], turning_point: float | None) -> Figure:
    """Squared errors of several models against t: a panel for each set of samples.

    Args:
      curves: samples → model → its errors, the same models in every panel; solid against the oracle, dashed against the CFM target.
    """
    figure, panels = style.new_figure(12.0, 6.4, columns=len(curves), sharey=True)
    for axes, (kind, models) in zip(panels, curves.items(), strict=True):
        shade_stages(axes, turning_point)
        for (name, errors), color in zip(models.items(), itertools.cycle(style.CYCLE), strict=False):
            axes.plot(errors.t, errors.cfm, color=color, linestyle="--", linewidth=1.6)
            axes.plot(errors.t, errors.oracle, color=color, label=name)
        time_axis(axes)
        axes.set_yscale("log")
        axes.set_title(f"{kind} samples", pad=24)
    # Off the training samples the oracle's refinement leads to the nearest of them: that error says nothing of a model, and is cut off.
    panels[0].set_ylim(top=2 * max(float(errors.cfm.max()) for models in curves.values() for errors in models.values()))
    panels[0].set_ylabel("mean squared error per value")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@style.context()
def memorization_figure(t: Float[np.ndarray, " T"], errors: Mapping[str, Curve], advantage: Curve, turning_point: float | None) -> Figure:
    """Errors of a model against the oracles of training and of unseen samples, and by how much the first is smaller.

    Args:
      errors: "training" and "unseen" → mean squared error at each t.
      advantage: 1 - training / unseen.
    """
    figure, (left, right) = style.new_figure(12.0, 5.4, columns=2)
    for axes in (left, right):
        shade_stages(axes, turning_point)
        time_axis(axes)
    for (name, curve), color in zip(errors.items(), (style.MEASURED, style.ORANGE), strict=True):
        draw_curve(left, t, curve, color, f"oracle of {name} samples")
    left.set_yscale("log")
    left.set_ylabel("mean squared error per value")
    left.legend()
    draw_curve(right, t, advantage, style.MEASURED, "1 - training / unseen")
    right.axhline(0, color=style.GREY, linewidth=1)
    right.set_ylabel("advantage of training samples")
    return figure


@style.context()
def gains_figure(gains: Mapping[tuple[str, str], Interval]) -> Figure:
    """What each of two things buys in each stage, with intervals.

    Args:
      gains: (bought by, stage) → by how much the error falls.
    """
    figure, (axes,) = style.new_figure(8.0, 5.0)
    names = list(dict.fromkeys(name for name, _ in gains))
    for offset, stage, color, marker in ((-0.1, "navigation", style.ORANGE, "o"), (0.1, "refinement", style.MEASURED, "s")):
        parts = np.array([gains[name, stage] for name in names])
        error = np.clip([parts[:, 0] - parts[:, 1], parts[:, 2] - parts[:, 0]], 0, None)
        places = np.arange(len(names)) + offset
        axes.errorbar(places, parts[:, 0], yerr=error, color=color, marker=marker, capsize=5, linestyle="none", label=stage)
    axes.axhline(0, color=style.GREY, linewidth=1.2)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("reduction of the squared error")
    axes.legend(loc="best")
    return figure


@style.context()
def swap_figure(rows: Sequence[Mapping[str, Any]], pairs: Sequence[str]) -> Figure:
    """The Fréchet distance of each pair of navigator and refiner, a line for each split: here, with 95 % over seeds, and as published.

    Args:
      rows: `split`, and for each pair its value, `PAIR, low`, `PAIR, high`, and, where there is one, `paper, PAIR`.
    """
    figure, (own, theirs) = style.new_figure(12.0, 5.4, columns=2, width_ratios=(3, 2))
    looks = zip(style.CYCLE, style.MARKERS, strict=True)
    places = np.arange(len(pairs))
    for row, (color, marker) in zip(rows, looks, strict=False):
        value, low, high = (np.array([row[f"{pair}{end}"] for pair in pairs]) for end in ("", ", low", ", high"))
        error = np.clip([value - low, high - value], 0, None)
        own.errorbar(places, value, yerr=error, color=color, marker=marker, capsize=4, linewidth=1.4, label=row["split"])
        published = [row[f"paper, {pair}"] for pair in pairs if row.get(f"paper, {pair}") is not None]
        if published:
            theirs.plot(places, published, color=color, marker=marker, linewidth=1.4, label=row["split"])
    for axes in (own, theirs):
        axes.set_xticks(places, [pair.replace("/", "/\n") for pair in pairs])
        axes.set_xlabel("navigator/refiner")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=11)
    own.set_ylabel("Fréchet distance, classifier features")
    theirs.set_ylabel("paper: gFID, ImageNet 256²")
    return figure


@style.context()
def cost_figure(points: Sequence[tuple[str, float, Interval]]) -> Figure:
    """The Fréchet distance against what sampling costs; a colour for each pair, specialists hollow.

    Args:
      points: name, parameters times steps, score.
    """
    figure, (axes,) = style.new_figure(9.0, 5.8)
    names = list(dict.fromkeys(name.partition(",")[0] for name, *_ in points))
    for name in dict.fromkeys(name for name, *_ in points):
        base, specialists, _ = name.partition(",")
        look = names.index(base)
        own = sorted((cost, *score) for other, cost, score in points if other == name)
        cost, value, low, high = np.array(own).T
        axes.errorbar(
            cost,
            value,
            yerr=np.clip([value - low, high - value], 0, None),
            color=style.CYCLE[look],
            marker=style.MARKERS[look],
            markerfacecolor="white" if specialists else style.CYCLE[look],
            linestyle="--" if specialists else "-",
            linewidth=1.4,
            capsize=4,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e5 else f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("parameters x steps")
    axes.set_ylabel("Fréchet distance, classifier features")
    figure.legend(loc="outside right upper", fontsize=11, title="navigator/refiner", title_fontsize=11)
    return figure


@style.context()
def spaces_figure(curves: Mapping[str, tuple[LossByTime, float | None, Float[np.ndarray, " R"] | None]]) -> Figure:
    """The loss against t in each space, over its mean in refinement; a panel each, on one scale.

    Args:
      curves: space → its errors, its turning point (None: it does not turn), and the smooth curve fitted from there on.
    """
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure, panels = style.new_figure(12.0, 1.0 + 4.0 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    for axes, (name, (errors, turn, fit)), color in zip(panels, curves.items(), itertools.cycle(style.CYCLE), strict=False):
        late = errors.t >= (np.inf if turn is None else turn)
        unit = errors.oracle[late].mean() if late.any() else errors.oracle.mean()
        shade_stages(axes, turn)
        axes.plot(errors.t, errors.oracle / unit, color=color)
        if fit is not None:
            axes.plot(errors.t[late], fit / unit, color="black", linestyle=":", linewidth=1.8)
        time_axis(axes)
        axes.set_yscale("log")
        axes.set_title(style.literal(name), pad=24)
        axes.set_ylabel("relative squared error")
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    return figure


@style.context()
def waviness_figure(waves: Mapping[str, Interval]) -> Figure:
    """A dot with its interval for each space."""
    figure, (axes,) = style.new_figure(8.6, 1.6 + 0.6 * max(len(waves), 1))
    for row, value in enumerate(waves.values()):
        error = np.clip([[value.value - value.low], [value.high - value.value]], 0, None)
        axes.errorbar(value.value, row, xerr=error, color=style.MEASURED, marker="o", capsize=5, linestyle="none")
        axes.text(value.value, row - 0.18, f"{value.value:.3f}", ha="center", va="bottom", fontsize=12)
    axes.set_yticks(range(len(waves)), list(waves))
    axes.set_ylim(len(waves) - 0.4, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel("waviness: residual of log loss about a parabola")
    return figure


@style.context()
def spectra_figure(spectra: Mapping[str, Float[np.ndarray, " _"]]) -> Figure:
    """Eigenvalues over the greatest, in falling order."""
    figure, (axes,) = style.new_figure()
    for (name, values), color in zip(spectra.items(), itertools.cycle(style.CYCLE), strict=False):
        kept = values[values > 1e-8 * values.max()]
        axes.plot(np.arange(len(kept)) + 1, kept / kept[0], color=color, label=f"{style.literal(name)}: {len(values):,} dimensions")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank")
    axes.set_ylabel("eigenvalue, over the greatest")
    axes.legend(loc="lower left")
    return figure
