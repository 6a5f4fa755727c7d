"""What reports say of near-duplicates: their groups, and the turning point between groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from flowjax.analysis.groups import GroupedTurn, decisive
from flowjax.analysis.near_duplicates import Groups
from flowjax.reporting import style
from flowjax.reporting.page import Section
from flowjax.reporting.strip import mosaic_figure
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import shown_time

SHOWN, MEMBERS = 6, 8
"""Groups in a picture, and at most so many members of each."""


def turn_rows(turns: Sequence[GroupedTurn], scale: float) -> list[dict[str, Any]]:
    """A row for each δ; `scale` is √(2 tr Cov)."""
    return [
        {
            "δ / √(2 tr Cov)": one.delta / scale,
            "samples with twins": one.share,
            "groups": one.groups,
            "t": one.turning_point.measured,
            "low": one.turning_point.ci_low,
            "high": one.turning_point.ci_high,
            "predicted": one.predicted.t,
        }
        for one in turns
    ]


def sentence(turns: list[GroupedTurn]) -> str:
    """Where it turns between groups, and whether that is another point than between samples."""
    one, last = decisive(turns), turns[-1]
    if last.turning_point.measured is None:
        return f"{last.share:.0%} of the samples have near-duplicates; between groups of them no turning point was found"
    where = f"between groups of near-duplicates it turns at t = {shown_time(one.turning_point.measured)}"
    if one.delta == 0:
        return f"{last.share:.0%} of the samples have near-duplicates, which do not move the turning point: {where}"
    return f"{last.share:.0%} of the samples have near-duplicates: {where}"


def section(workdir: WorkDir, turns: list[GroupedTurn], scale: float) -> Section:
    """The curve over δ, and its table."""
    one = decisive(turns)
    unsure = next((f" The last prediction is unsure: {turn.predicted.unsure}." for turn in turns[-1:] if turn.predicted.unsure), "")
    text = (
        "Samples within δ of each other are one group, whose weight is the sum of its members'. "
        f"The δ are quantiles of the data's own distances. From δ = {one.delta / scale:.3g} √(2 tr Cov) on the turning point is that of "
        f"the greatest δ, beyond which samples are no near-duplicates.{unsure}"
    )
    figure = workdir.save_figure("groups", turns_figure(turns, scale))
    return Section("Between groups of near-duplicates", text, figure, alt="Turning point against δ", table=turn_rows(turns, scale))


@style.context()
def turns_figure(turns: Sequence[GroupedTurn], scale: float) -> Figure:
    """The turning point between groups against δ, measured and predicted, and how many samples have twins."""
    figure, (left, right) = style.new_figure(11.0, 5.0, columns=2)
    delta = np.array([one.delta for one in turns]) / scale
    least = 0.5 * delta[delta > 0].min()
    at = np.where(delta > 0, delta, least)
    measured = np.array([np.nan if one.turning_point.measured is None else one.turning_point.measured for one in turns])
    low, high = (np.array([np.nan if end is None else end for end in ends]) for ends in zip(*_ends(turns), strict=True))
    left.errorbar(
        at,
        measured,
        yerr=np.clip([measured - low, high - measured], 0, None),
        color=style.MEASURED,
        marker="o",
        capsize=4,
        label="measured",
    )
    left.plot(at, [one.predicted.t for one in turns], color=style.PREDICTED, linestyle="--", marker="s", label="predicted")
    left.set_ylabel("turning point t")
    left.set_ylim(0, min(1, 1.3 * np.nanmax([*high, *(one.predicted.t for one in turns)])))
    left.legend(loc="best")
    right.plot(at, [one.share for one in turns], color=style.ALTERNATIVE, marker="o")
    right.set_ylabel("share of samples with twins")
    right.set_ylim(0, 1.02)
    named = [value for place, value in enumerate(at) if place == 0 or value > 1.3 * at[place - 1]]
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(named, ["0", *(f"{value:.2g}" for value in named[1:])])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("δ over √(2 tr Cov)   (0: samples)")
    return figure


def _ends(turns: Sequence[GroupedTurn]) -> list[tuple[float | None, float | None]]:
    return [(one.turning_point.ci_low, one.turning_point.ci_high) for one in turns]


def group_rows(groups: Groups) -> list[dict[str, Any]]:
    """A row for each sample that has near-duplicates, the largest group first."""
    rows = []
    for number, members in enumerate(groups.largest(groups.of.shape[1])):
        rows += [{"group": number, "size": len(members), "sample": int(i)} for i in members]
    return rows


@style.context()
def groups_figure(members: Sequence[Float[np.ndarray, "M *shape"]], sizes: Sequence[int], value_range: tuple[float, float]) -> Figure:
    """A row for each of some groups.

    Args:
      members: some of each; empty places are white.
      sizes: of the groups.
    """
    columns = max(len(part) for part in members)
    empty = np.full((len(members), columns, *members[0].shape[1:]), np.nan, np.float32)
    for row, part in zip(empty, members, strict=True):
        row[: len(part)] = part
    figure, axes, (height, _, gap) = mosaic_figure(empty, value_range)
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(members)) * (height + gap) + (height - 1) / 2, [f"{size:,}" for size in sizes])
    axes.set_ylabel("samples in the group")
    return figure


def shown_members(groups: Groups) -> list[Int[np.ndarray, " _"]]:
    """Some members of some of the largest groups."""
    return [members[:MEMBERS] for members in groups.largest(SHOWN)]
