"""The strip of images: noisy queries, and the oracle's one-step predictions of them, from noise to data."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowjax.reporting import style
from flowjax.schedules import shown_time


@style.context()
def strip_figure(
    t: Float[np.ndarray, " T"],
    queries: Float[np.ndarray, "S T *shape"],
    predictions: Float[np.ndarray, "S T *shape"],
    value_range: tuple[float, float],
    turning_point: float | None = None,
) -> Figure:
    """Two rows for each of S samples: x_t above, the oracle's one-step prediction below, a column for each t.

    Args:
      t: `[T]`, rising; about a dozen fit.
      queries: x_t, `[S, T, *shape]`. Samples are shown as `as_image` has them.
      predictions: where one Euler step from t to 1 along the oracle leads.
      value_range: (low, high), shown as black and white; what lies beyond is clipped.
      turning_point: a line between the columns on its two sides; None draws none.
    """
    rows = np.stack([row for pair in zip(queries, predictions, strict=True) for row in pair])
    figure, axes, (height, width, gap) = mosaic_figure(rows, value_range)
    axes.set_xticks(np.arange(len(t)) * (width + gap) + (width - 1) / 2, [f"{value:.2g}" for value in t])
    labels = ["$x_t$", "one step"] * len(queries)
    axes.set_yticks(np.arange(len(rows)) * (height + gap) + (height - 1) / 2, labels)
    axes.set_xlabel("t   (0: noise, 1: data)")
    for sample in range(1, len(queries)):
        axes.axhline(2 * sample * (height + gap) - (gap + 1) / 2, color=style.GREY, linewidth=1)
    if turning_point is not None:
        boundary = np.searchsorted(t, turning_point) * (width + gap) - (gap + 1) / 2
        axes.axvline(boundary, color=style.VERMILION, linewidth=2.5)
        axes.text(
            boundary, -0.6, f"turning point {shown_time(turning_point)}", color=style.VERMILION, ha="center", va="bottom", fontsize=14
        )
    return figure


@style.context()
def rows_figure(rows: Mapping[str, Float[np.ndarray, "K *shape"]], value_range: tuple[float, float]) -> Figure:
    """Rows of samples, one below the other, each with its name: images and their reconstructions, samples and their nearest ones.

    Args:
      rows: name → samples `[K, *shape]`, shown as `as_image` has them.
      value_range: (low, high), shown as black and white; what lies beyond is clipped.
    """
    figure, axes, (height, _, gap) = mosaic_figure(np.stack(list(rows.values())), value_range)
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(rows)) * (height + gap) + (height - 1) / 2, list(rows))
    return figure


def mosaic_figure(samples: Float[np.ndarray, "R K *shape"], value_range: tuple[float, float]) -> tuple[Figure, Axes, tuple[int, int, int]]:
    """Samples in rows and columns, as one picture, and the height, width and gap of its cells."""
    low, high = value_range
    images = np.stack([[as_image(x) for x in row] for row in samples])
    images = np.nan_to_num(np.clip((images - low) / ((high - low) or 1.0), 0, 1), nan=1.0)  # [R, K, H, W, 3]; empty cells white
    height, width = images.shape[2:4]
    gap = max(1, round(0.06 * width))
    mosaic = np.ones((images.shape[0] * (height + gap), images.shape[1] * (width + gap), 3), images.dtype)
    # One picture, not one per cell: it draws in a tenth of the time.
    for row, column in np.ndindex(images.shape[:2]):
        top, left = row * (height + gap), column * (width + gap)
        mosaic[top : top + height, left : left + width] = images[row, column]

    inches = 12.0
    figure, (axes,) = style.new_figure(inches, 1.0 + (inches - 1.4) * mosaic.shape[0] / mosaic.shape[1])
    axes.imshow(mosaic)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure, axes, (height, width, gap)


def as_image(sample: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "H W 3"]:
    """One sample as a picture: `[H, W]`, `[H, W, 1]` and `[H, W, 3]` as they are, of any other `[H, W, C]` the first channel.

    A vector `[D]` (and anything else) is laid out row by row in a nearly square picture, whose last cells, NaN, are empty.
    """
    if sample.ndim == 3 and sample.shape[-1] != 3:
        sample = sample[..., 0]
    elif sample.ndim not in (2, 3):
        width = math.ceil(math.sqrt(sample.size))
        height = math.ceil(sample.size / width)
        sample = np.pad(sample.ravel(), (0, height * width - sample.size), constant_values=np.nan).reshape(height, width)
    return sample if sample.ndim == 3 else np.repeat(sample[..., None], 3, axis=-1)
