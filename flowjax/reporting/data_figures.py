"""The figures of `inspect_data`."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from flowjax.reporting import style


@style.context()
def spectrum_figure(eigenvalues: Float[np.ndarray, " E"], effective_dimension: float) -> Figure:
    """Covariance eigenvalues against their rank, and the share of the variance that the first of them hold.

    Args:
      eigenvalues: falling, in the data's unit squared.
      effective_dimension: (Σλ)² / Σλ², marked in both panels.
    """
    figure, (left, right) = style.new_figure(10.5, 5.0, columns=2)
    rank = np.arange(1, len(eigenvalues) + 1)
    top = float(eigenvalues.max(initial=0.0)) or 1.0
    left.loglog(rank, np.maximum(eigenvalues, top * 1e-7), color=style.MEASURED)
    left.set_ylabel("eigenvalue λ (data units²)")
    right.semilogx(rank, np.cumsum(eigenvalues) / max(float(eigenvalues.sum()), 1e-300), color=style.MEASURED)
    right.set_ylabel("share of the variance")
    right.set_ylim(0, 1.02)
    for axes in (left, right):
        axes.axvline(max(effective_dimension, 1), color=style.PREDICTED, linestyle="--", label=f"(Σλ)² / Σλ² = {effective_dimension:.1f}")
        axes.set_xlabel("rank")
    right.legend(loc="lower right")
    return figure


@style.context()
def classes_count_figure(classes: Int[np.ndarray, " K"], counts: Int[np.ndarray, " K"]) -> Figure:
    """How many samples each class has.

    Args:
      classes: the labels that occur, rising; they are drawn side by side, whatever numbers are missing between them.
      counts: of their samples.
    """
    figure, (axes,) = style.new_figure()
    shown = np.unique(np.linspace(0, len(classes) - 1, 10).round().astype(int))
    axes.bar(np.arange(len(counts)), counts, width=0.8 if len(counts) < 100 else 1.0, color=style.MEASURED)
    axes.set_xticks(shown, classes[shown].astype(str).tolist(), rotation=0 if classes[-1] < 10_000 else 30)
    axes.set_xlabel("label" if classes[-1] == len(classes) - 1 else f"label, of the {len(classes):,} that occur")
    axes.set_ylabel("samples")
    axes.grid(axis="x", visible=False)
    return figure


@style.context()
def nearest_figure(nearest: Float[np.ndarray, " Q"], near: float) -> Figure:
    """How far samples are from the nearest other, squared, over the mean squared distance of two samples.

    Args:
      nearest: of Q samples.
      near: below it, near duplicates.
    """
    figure, (axes,) = style.new_figure()
    least, most = max(float(nearest.min()), 1e-6), max(float(nearest.max()), 1.5)
    axes.hist(np.maximum(nearest, least), bins=np.geomspace(min(least, near / 2), most, 50).tolist(), color=style.MEASURED)
    axes.axvline(near, color=style.PREDICTED, linestyle="--", label=f"near duplicates: below {near:g}")
    axes.axvline(1, color=style.GREY, linestyle=":", label="two samples at random")
    axes.set_xscale("log")
    axes.set_xlabel("squared distance to the nearest other, over 2 tr Cov")
    axes.set_ylabel("samples")
    axes.legend(loc="upper left")
    return figure
