"""What every figure against t shares."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flowjax.analysis.statistics import Curve
from flowjax.reporting import style


def draw_curve(axes: Axes, t: Float[np.ndarray, " T"], curve: Curve, color: str, label: str, linestyle: str = "-") -> None:
    """A mean with its 95 % band."""
    axes.fill_between(t, curve.low, curve.high, color=color, alpha=0.22, linewidth=0)
    axes.plot(t, curve.mean, color=color, label=label, linestyle=linestyle)


def time_axis(axes: Axes) -> None:
    """t from 0 to 1, named."""
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6), ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axes.set_xlabel("t   (0: noise, 1: data)")


def shade_stages(axes: Axes, turning_point: float | None) -> None:
    """Shades and names the two stages; nothing without a turning point."""
    if turning_point is None:
        return
    axes.axvspan(0, turning_point, color=style.NAVIGATION, linewidth=0, zorder=0)
    axes.axvspan(turning_point, 1, color=style.REFINEMENT, linewidth=0, zorder=0)
    for name, start, end in (("navigation", 0.0, turning_point), ("refinement", turning_point, 1.0)):
        axes.text(
            (start + end) / 2, 1.015, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=13, color=style.GREY
        )
