"""Images of a training run: grids of samples, and loss curves."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from flowjax.metrics.copies_by_t import CopiesByTime
from flowjax.metrics.loss_by_t import LossByTime
from flowjax.reporting import style
from flowjax.reporting.curves import draw_curve, shade_stages, time_axis
from flowjax.reporting.strip import as_image


def sample_grid(samples: Float[np.ndarray, "N *shape"], value_range: tuple[float, float], columns: int) -> Image.Image:
    """Samples side by side, row by row, with a thin white gap; small ones enlarged so that a person can see them.

    Args:
      value_range: (low, high), shown as black and white; what lies beyond is clipped.
      columns: samples in a row.
    """
    low, high = value_range
    images = np.stack([as_image(sample) for sample in samples])
    pixels = (255 * np.clip((images - low) / ((high - low) or 1.0), 0, 1)).round().astype(np.uint8)
    scale = max(1, 48 // images.shape[1])
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = pixels.shape[1] + 2, pixels.shape[2] + 2
    sheet = np.full((math.ceil(len(pixels) / columns) * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height - 2, left : left + width - 2] = picture
    return Image.fromarray(sheet)


@style.context()
def loss_by_t_figure(measured: LossByTime, turning_point: float | None) -> Figure:
    """Error against t: against the CFM target, and against the oracle."""
    figure, (axes,) = style.new_figure()
    shade_stages(axes, turning_point)
    axes.plot(measured.t, measured.cfm, color=style.ALTERNATIVE, linestyle="--", label="against the CFM target")
    axes.plot(measured.t, measured.oracle, color=style.MEASURED, label="against the oracle")
    time_axis(axes)
    axes.set_yscale("log")
    axes.set_ylabel("mean squared error per value")
    axes.legend(loc="best")
    return figure


@style.context()
def copies_by_t_figure(measured: CopiesByTime, turning_point: float | None) -> Figure:
    """The share of ends that are copies, against the t from which the model is followed."""
    figure, (axes,) = style.new_figure()
    shade_stages(axes, turning_point)
    curves = measured.curves()
    for (name, curve), color in zip(curves.items(), (style.MEASURED, style.ORANGE), strict=False):
        draw_curve(axes, measured.t, curve, color, f"from noised {name} samples")
        axes.plot(measured.t, curve.mean, color=color, marker="o", linestyle="none")
    time_axis(axes)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share of ends that are copies")
    axes.legend(loc="best")
    return figure


@style.context()
def training_figure(lines: Sequence[Mapping[str, float | int]]) -> Figure:
    """The training loss against steps, and what evaluations found of each stage's error against the oracle."""
    figure, (axes,) = style.new_figure()
    for key, color, label in (
        ("loss", style.GREY, "training loss"),
        ("oracle/navigation", style.ORANGE, "against the oracle, navigation"),
        ("oracle/refinement", style.MEASURED, "against the oracle, refinement"),
        ("oracle/all", style.MEASURED, "against the oracle"),
        ("accuracy", style.GREEN, "accuracy"),
    ):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) < 20 else None)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("mean squared error per value" if any("oracle/navigation" in line for line in lines) else "loss")
    axes.legend(loc="best")
    return figure
