"""Pages from the templates in `templates/`, by Jinja2: every value is escaped, and one that a template lacks is an error."""

import base64
import functools
import importlib.resources
import pathlib
from typing import Any

import jinja2
from markupsafe import Markup

from flowjax.reporting import tables

_MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
_SVG_LIMIT = 500_000  # bytes; a figure of more is embedded as the .png beside it


def rendered(template: str, **values: Any) -> Markup:
    """The template `templates/NAME` with these values, each escaped where it is shown.

    Raises:
      jinja2.UndefinedError: the template names a value that was not given.
    """
    return Markup(_environment().get_template(template).render(values))


def verbatim(name: str) -> Markup:
    """The file `templates/NAME` as it is: a style or a script, which is ours and in which nothing is filled in."""
    return Markup(importlib.resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8"))


def data_uri(media: str, content: bytes) -> str:
    """The content as an address by which a page holds it itself."""
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _embedded(figure: pathlib.Path) -> str:
    if figure.suffix == ".svg" and figure.stat().st_size > _SVG_LIMIT:
        figure = figure.with_suffix(".png")
    return data_uri(_MEDIA[figure.suffix], figure.read_bytes())


def html_table(rows: tables.Rows) -> Markup:
    """The rows as an HTML table: see `tables.laid_out`."""
    return rendered("table.html.j2", table=tables.laid_out(rows))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowjax.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"embedded": _embedded, "html_table": html_table, "verbatim": verbatim}
    return environment
