"""Puts measured numbers into the documents, from JSON that commands have written.

    python docs/fill_numbers.py                                   # fill README.md and docs/*.md
    python docs/fill_numbers.py --check                           # fail if a document has other numbers; part of `make lint`
    python docs/fill_numbers.py --sweep="digits=runs/oracle_sweep"    # keep a sweep's turning point in turning_points.json, then fill

A document has `<!-- figures: FILE VIEW -->` before a number and `<!-- end -->` behind it; FILE lies in docs/figures. VIEW is the path of a
number and its format, like `largest.velocity:.1e`; or `table`: a row for each of `rows`, whose cells `columns` formats; or `table:NAME`: of
the rows whose key begins with NAME, without the columns that the file lists as `same_in_group`.
"""

import argparse
import json
import pathlib
import re
import shlex
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
MARKED = re.compile(r"<!-- figures: (\S+) (\S+) -->(.*?)<!-- end -->", re.DOTALL)
TURNING_POINTS = "turning_points.json"
COLUMNS = {
    "data": "{data}",
    "measured": "{measured:.3f} ({ci_low:.3f} to {ci_high:.3f})",
    "predicted": "{predicted:.3f}",
    "": "{off_percent:+.1f} %",
}
OF_A_MACHINE = ("--workdir", "--resume", "--overwrite", "--config.data.data_dir", "--config.data.cache_dir", "--config.data.manual_dir")
"""Flags that change where a sweep reads and writes, not what it finds."""


def table(file: dict[str, Any], group: str = "") -> str:
    """A Markdown table of the rows, on lines of its own; with `group`, of the rows whose key begins with it.

    Raises:
      KeyError: no such row.
    """
    columns = {name: form for name, form in file["columns"].items() if not group or name not in file.get("same_in_group", ())}
    rows = [row for key, row in file["rows"].items() if key.startswith(group)]
    if not rows:
        raise KeyError(group)
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(form.format_map(row) for form in columns.values()) + " |" for row in rows]
    return "\n" + "\n".join(lines) + "\n"


def shown(file: dict[str, Any], view: str) -> str:
    """The text between the marks."""
    path, _, form = view.partition(":")
    if path == "table":
        return table(file, form)
    value: Any = file
    for key in path.split("."):
        value = value[key]
    return format(value, form)


def filled(text: str, folder: pathlib.Path) -> str:
    """The document with the numbers of the JSON files.

    Raises:
      ValueError: a mark that names no number, or that begins a line and is no table.
    """

    def fill(mark: re.Match[str]) -> str:
        file, view, _ = mark.groups()
        if view.partition(":")[0] != "table" and text[: mark.start()].rpartition("\n")[2].strip() == "":
            raise ValueError(f"<!-- figures: {file} {view} --> begins a line, where Markdown ends the paragraph: put a word before it")
        try:
            between = shown(json.loads((folder / file).read_text(encoding="utf-8")), view)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"<!-- figures: {file} {view} -->: there is no such number ({error!r})") from error
        return f"<!-- figures: {file} {view} -->{between}<!-- end -->"

    return MARKED.sub(fill, text)


def add_sweep(file: pathlib.Path, name: str, workdir: pathlib.Path) -> None:
    """Write the turning point of a finished `oracle_sweep` into the JSON, in place of an earlier one of that name."""
    found = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    turn = {key: found["turning_point"][key] for key in ("measured", "ci_low", "ci_high", "predicted")}
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"columns": COLUMNS, "rows": {}}
    told["rows"][name] = {
        "data": name,
        **turn,
        "off_percent": 100 * (turn["predicted"] / turn["measured"] - 1),
        "n": found["n"],
        "command": shlex.join(part for part in shlex.split(found["command"]) if part.partition("=")[0] not in OF_A_MACHINE),
        "jax": found["versions"]["jax"],
    }
    file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Fill, or check; 1 if something is to be filled."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="change nothing; fail where a document has other numbers")
    arguments.add_argument("--sweep", action="append", default=[], metavar="NAME=DIR", help="a finished oracle_sweep")
    arguments.add_argument("--root", type=pathlib.Path, default=ROOT, help="of the documents")
    given = arguments.parse_args()
    folder = given.root / "docs" / "figures"
    stale = []
    try:
        for sweep in given.sweep:
            name, _, workdir = sweep.rpartition("=")
            add_sweep(folder / TURNING_POINTS, name, pathlib.Path(workdir))
        for document in sorted([given.root / "README.md", *(given.root / "docs").glob("*.md")]):
            text = document.read_text(encoding="utf-8")
            try:
                wanted = filled(text, folder)
            except ValueError as error:
                raise ValueError(f"{document.relative_to(given.root)}: {error}") from error
            if wanted != text:
                stale.append(str(document.relative_to(given.root)))
                if not given.check:
                    document.write_text(wanted, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"fill_numbers: {error}", file=sys.stderr)
        return 1
    if stale and given.check:
        print(f"{', '.join(stale)}: numbers are not those of docs/figures/*.json; run python docs/fill_numbers.py", file=sys.stderr)
    elif stale:
        print(f"filled {', '.join(stale)}")
    return int(bool(stale) and given.check)


if __name__ == "__main__":
    sys.exit(main())
