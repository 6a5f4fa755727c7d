"""The one plot style of the project."""

import pathlib
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers with any of the common colour deficiencies can tell apart.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, BLACK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY = "#5A5A5A"
MEASURED, PREDICTED, ALTERNATIVE = BLUE, VERMILION, GREEN  # roles of a line
NAVIGATION, REFINEMENT = "#FCEBC8", "#DCEEF9"  # tints of the two stages: orange and sky, lightened
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # so that no series is told by its colour alone

_RC: Any = {
    "figure.facecolor": "white",  # also on a dark page
    "savefig.facecolor": "white",
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.09,  # inches
    "figure.constrained_layout.w_pad": 0.09,
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that a figure looks alike everywhere
    "font.size": 15,  # readable when the figure is shown at half its size
    "axes.titlesize": 16,
    "axes.labelsize": 15,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 13,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#D0D0D0",
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.4,
    "lines.markersize": 8,
    "svg.hashsalt": "flowjax",  # the same figure gives the same file
}


def context() -> Any:
    """The style as a context manager, and as a decorator of a function that draws."""
    return matplotlib.rc_context(_RC)


def new_figure(width: float = 9.0, height: float = 5.4, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches, and its axes row by row. It is unknown to pyplot: there is nothing to close."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False, **settings)
    return figure, list(axes.flat)


def literal(name: str) -> str:
    """A name from outside, as Matplotlib draws it letter by letter: dollars begin no formula, and what cannot be printed is a box."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name).replace("$", r"\$")


def save(figure: Figure, directory: pathlib.Path, name: str) -> pathlib.Path:
    """Writes `name.png` (150 dots per inch) and `name.svg` into `directory`; returns the path of the latter."""
    directory.mkdir(parents=True, exist_ok=True)
    with context():
        figure.savefig(directory / f"{name}.png")
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
    return directory / f"{name}.svg"
