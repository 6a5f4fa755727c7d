"""The tables and figures of an audit of memorisation."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure

from flowjax.analysis.statistics import Share, share
from flowjax.metrics import copying
from flowjax.metrics.copying import COPY_RATIO, Nearest
from flowjax.reporting import style
from flowjax.reporting.strip import mosaic_figure

COLUMNS = 8
"""Samples in a row of the picture."""


@dataclasses.dataclass(frozen=True, eq=False)
class Audited:
    """A set of samples, with what was found of them.

    Attributes:
      name, steps: where they come from, and how long their model was trained, if that is known.
      threshold: the ratio up to which a sample is called a copy.
      baseline: the ratios of unseen samples.
    """

    name: str
    steps: int | None
    found: Nearest
    threshold: float
    baseline: Float[np.ndarray, " M"]

    @property
    def copies(self) -> Bool[np.ndarray, " B"]:
        """Which samples pass the threshold."""
        return self.found.ratio <= self.threshold

    @property
    def share(self) -> Share:
        """Of those."""
        return share(self.copies)

    @property
    def unseen(self) -> Share:
        """The share of unseen samples that pass it."""
        return share(self.baseline <= self.threshold)

    @functools.cached_property
    def excess(self) -> Share:
        """The share of copies beyond that."""
        return copying.excess(self.copies, self.baseline <= self.threshold)


def copy_rows(one: Audited, kept: Int[np.ndarray, " N"], labels: Int[np.ndarray, " R"] | None, several: bool) -> list[dict[str, Any]]:
    """A row for each sample, the smallest ratio first.

    Args:
      kept: the number of each training sample in the user's data; labels: by that number.
    """
    found, ratio = one.found, one.found.ratio
    chance = copying.ranks(ratio, one.baseline)
    rows = []
    for i in np.argsort(ratio, kind="stable").tolist():
        row = int(kept[found.row[i]])
        rows.append(
            ({"samples": one.name} if several else {})
            | {
                "sample": i,
                "nearest": row,
                "ratio": float(ratio[i]),
                "passes": bool(one.copies[i]),
                "p": float(chance[i]),
                "distance": float(found.distance[i]),
                "second": float(found.second[i]),
                "mirrored": bool(found.mirrored[i]),
                "near-duplicates": int(found.twins[i]),
            }
            | ({} if labels is None else {"class": int(labels[row])})
        )
    return rows


def share_row(one: Audited) -> dict[str, Any]:
    """What is told of one set of samples."""
    row: dict[str, Any] = {"samples": one.name} | ({} if one.steps is None else {"steps": one.steps})
    row |= {"n": len(one.found.ratio), "passed": one.share.value, "unseen": one.unseen.value}
    return row | {"copies": one.excess.value, "low": one.excess.low, "high": one.excess.high}


def class_rows(
    one: Audited, kept: Int[np.ndarray, " N"], labels: Int[np.ndarray, " R"] | None, names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The samples that pass, by the class of the nearest training sample; empty without labels."""
    if labels is None:
        return []
    of = labels[kept[one.found.row]]
    rows = []
    for label in np.unique(of).tolist():
        part = share(one.copies[of == label])
        name = str(label) if names is None else names[label]
        rows.append({"class": name, "samples": int((of == label).sum()), "passed": part.value, "low": part.low, "high": part.high})
    return sorted(rows, key=lambda row: -row["passed"])


def baseline_rows(baselines: Mapping[str, Nearest], threshold: float) -> list[dict[str, Any]]:
    """How many of what is no copy pass."""
    names = {"training": "training samples among the others", "heldout": "held-out data"}
    rows = []
    for key, one in baselines.items():
        part = share(one.ratio <= threshold)
        third = float(np.mean(one.ratio < COPY_RATIO))
        rows.append(
            {"unseen": names[key], "n": len(one.ratio), "passed": part.value, "low": part.low, "high": part.high, "below a third": third}
        )
    return rows


@style.context()
def pairs_figure(
    one: Audited,
    order: Int[np.ndarray, " S"],
    samples: Float[np.ndarray, "S *shape"],
    originals: Float[np.ndarray, "S *shape"],
    value_range: tuple[float, float] | None,
) -> Figure:
    """Samples, each above its nearest training sample.

    Args:
      order: which samples of the set they are.
      originals: the nearest of each.
      value_range: (low, high), shown as black and white; None: that of the originals.
    """
    columns = min(COLUMNS, len(order))
    count = len(order) // columns * columns
    rows = [part[start : start + columns] for start in range(0, count, columns) for part in (samples, originals)]
    span = value_range or (float(originals.min()), float(originals.max()))
    figure, axes, (height, width, gap) = mosaic_figure(np.stack(rows), span)
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(rows)) * (height + gap) + (height - 1) / 2, ["sample", "nearest"] * (len(rows) // 2))
    for place, i in enumerate(order[:count]):
        row, column = divmod(place, columns)
        text = f"{one.found.ratio[i]:.2f}" + " m" * bool(one.found.mirrored[i])
        x, y = column * (width + gap), 2 * row * (height + gap)
        color = style.VERMILION if one.copies[i] else "black"
        axes.text(x, y, text, color=color, fontsize=10, ha="left", va="top", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        if row:
            axes.axhline(2 * row * (height + gap) - (gap + 1) / 2, color=style.GREY, linewidth=1)
    return figure


@style.context()
def ratios_figure(one: Audited, baselines: Mapping[str, Float[np.ndarray, " M"]]) -> Figure:
    """How many samples lie below each ratio: those that were generated, and those that are no copies."""
    figure, (axes,) = style.new_figure()
    looks = {"heldout": ("held-out data", style.GREEN, "--"), "training": ("training samples, among the others", style.GREY, ":")}
    least = max(1e-3, min(float(values.min()) for values in (one.found.ratio, *baselines.values())))
    axes.step(*_rising(one.found.ratio, least), where="post", color=style.MEASURED, label="samples")
    for name, values in baselines.items():
        label, color, line = looks[name]
        axes.step(*_rising(values, least), where="post", color=color, linestyle=line, label=label)
    axes.axvline(one.threshold, color=style.PREDICTED, label=f"threshold {one.threshold:.2f}")
    if one.threshold != COPY_RATIO:
        axes.axvline(COPY_RATIO, color=style.PREDICTED, linewidth=1.2, linestyle=":", label="a third")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(right=1)
    axes.set_xlabel("distance to the nearest, over that to the second nearest")
    axes.set_ylabel("share of samples below")
    axes.legend(loc="upper left", fontsize=11)
    return figure


def _rising(values: Float[np.ndarray, " B"], least: float) -> tuple[np.ndarray, np.ndarray]:
    ordered = np.maximum(np.sort(values), least)
    return np.r_[ordered, 1.0], np.r_[np.arange(1, len(values) + 1), len(values)] / len(values)


@style.context()
def steps_figure(audited: Sequence[Audited]) -> Figure:
    """The share of copies of each set of samples: against training steps, where they are known for all."""
    figure, (axes,) = style.new_figure()
    known = all(one.steps is not None for one in audited)
    at = np.array([one.steps for one in audited] if known else np.arange(len(audited)), float)
    value, low, high = np.array([one.excess for one in audited]).T
    axes.errorbar(
        at, value, yerr=np.clip([value - low, high - value], 0, None), color=style.MEASURED, marker="o", capsize=5, label="copies, 95 %"
    )
    unseen = audited[-1].unseen
    axes.axhspan(unseen.low, unseen.high, color=style.GREY, alpha=0.25, linewidth=0, label="unseen data that pass, 95 %")
    if not known:
        axes.set_xticks(at, [style.literal(one.name) for one in audited])
    axes.set_xlabel("training steps" if known else "samples")
    axes.set_ylabel("share of copies")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return figure
