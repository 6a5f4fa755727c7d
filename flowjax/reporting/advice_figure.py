"""What a turning point says about settings, on the axis of time."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from flowjax.reporting import style
from flowjax.reporting.curves import shade_stages, time_axis
from flowjax.schedules import shift, shown_time
from flowjax.stages import Advice, TurningPoint


@style.context()
def advice_figure(found: TurningPoint, predicted: float, settings: Advice, grid: Float[np.ndarray, " T"]) -> Figure:
    """Both stages, and in them the steps of a sampler, as they are and shifted, and the guidance interval with its range.

    Args:
      found: the turning point, measured.
      predicted: from the data.
      settings: what follows from it.
      grid: `[T]`, the edges of the unshifted steps.
    """
    figure, (axes,) = style.new_figure(10.0, 4.2)
    shade_stages(axes, found.measured)
    rows = [("uniform steps", grid[:-1])]
    if settings.shift.value is not None:
        rows.append((f"shifted, s = {settings.shift.value:.2g}", shift(grid[:-1], settings.shift.value)))
    for height, (_, times) in enumerate(rows):
        axes.plot(times, np.full(len(times), height), "|", color=style.MEASURED, markersize=16, markeredgewidth=1.6)
    names = [name for name, _ in rows]
    interval = settings.guidance_interval
    if interval.value is not None and interval.range is not None:
        (low, early), (_, late) = interval.range
        axes.barh(len(names), interval.value[1] - low, left=low, height=0.34, color=style.ALTERNATIVE)
        axes.plot([early, late], [len(names)] * 2, color=style.BLACK, marker="|", markersize=14, linewidth=1.4)
        names.append("guidance")
    axes.axvline(predicted, color=style.PREDICTED, linestyle="--", label=f"turning point, predicted: {shown_time(predicted)}")
    figure.legend(loc="outside lower right")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) + 0.1)
    axes.grid(visible=False, axis="y")
    time_axis(axes)
    return figure
