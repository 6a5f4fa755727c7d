"""Figures drawn to files, their texts, and the files of a folder."""

import pathlib
import xml.etree.ElementTree

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from flowjax.reporting import figures, style

T = np.linspace(0.01, 0.99, 30)
RISING = figures.Curve(T**2, T**2 * 0.9, T**2 * 1.05)


def drawn(figure: Figure, folder: pathlib.Path) -> pathlib.Path:
    """Renders both files, and requires that they be what they claim."""
    svg = style.save(figure, folder, "figure")
    xml.etree.ElementTree.parse(svg)
    with Image.open(svg.with_suffix(".png")) as image:
        assert min(image.size) > 300
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    return svg
