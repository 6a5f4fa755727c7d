"""All findings of arXiv 2512.02826 on your machine, one report: what the paper says, what was found here, and by which command.

    python -m experiments.reproduce                                                             # digits
    python -m experiments.reproduce --config=experiments/configs/reproduce.py:fashion_mnist     # in the background of a day
    python -m experiments.reproduce --resume                                                    # go on; what is done is not done again
    python -m experiments.reproduce --config.only="('timestep_shift',)"                         # one of them
    python -m experiments.reproduce --config=experiments/configs/reproduce.py:imagenet_vavae \\
        --config.model=CHECKPOINT.pt --config.data=FOLDER_OF_SHARDS

Runs each experiment as a user would, in a process of its own, in --workdir/experiments/NAME, and trains one model for all that need one.
The command that the report shows beside a finding is the one that was run. An experiment that fails does not keep the others from running;
at the end the command fails too, and --resume tries again what is missing. Writes config.json, summary.json, findings.csv and report.html
to --workdir (runs/reproduce).
"""

import csv
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.paper_findings import FINDINGS, MODEL, Experiment, Finding
from experiments.configs.model import PRESETS
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.exit_codes import Exit

FOLDER = "experiments"
LIVE = (FOLDER,)
ON_DISK = True
"""So does one of the experiments that it runs."""
FREE = app.ANY


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    asked = list(_asked(config))
    folder = workdir.live(FOLDER)
    failed = [experiment.name for experiment in asked if not _run(experiment, config, folder)]
    if failed:
        raise ValueError(f"{', '.join(failed)} failed, as said above; all others are done and kept: --resume tries again what is missing")
    summaries = {experiment.name: _summary(folder / experiment.name) for experiment in asked}
    answered = [(finding, [each for each in finding.experiments if each.name in summaries]) for finding in FINDINGS]
    answered = [(finding, experiments) for finding, experiments in answered if experiments]
    rows = [_row(finding, experiment, summaries[experiment.name]) for finding, experiments in answered for experiment in experiments]
    takeaway = _takeaway(config.preset, rows)
    origin = app.provenance("reproduce", config, started)
    workdir.write_csv("findings.csv", rows)
    workdir.write_json("summary.json", {"preset": config.preset, "findings": rows, "takeaway": takeaway, **origin})
    sections = [Section("In short", "Each finding has a section below, with the paper's statement and the command.", table=_short(rows))]
    for finding, experiments in answered:
        sections.append(Section(finding.heading, f"The paper: {finding.paper}"))
        for experiment in experiments:
            sections += _sections(experiment, folder / experiment.name, summaries[experiment.name], _command(experiment, config, folder))
    workdir.write_report(f"From navigation to refinement: {config.preset}", takeaway, sections, origin, contents=True)
    return takeaway


def _asked(config: ConfigDict) -> Iterator[Experiment]:
    """The experiments to run, in their order."""
    if config.preset not in PRESETS:
        raise ValueError(f"preset = {config.preset!r}: expected one of {', '.join(PRESETS)}")
    every = [
        each
        for finding in FINDINGS
        for each in finding.experiments
        if each.presets.get(config.preset, config.preset) and not (each.name == MODEL and config.model)
    ]
    unknown = sorted(set(config.only) - {each.name for each in every})
    if unknown:
        raise ValueError(
            f"only = {unknown[0]!r}: there is no such experiment; {config.preset} has {', '.join(each.name for each in every)}"
        )
    wanted = [each for each in every if not config.only or each.name in config.only]
    needed = not config.model and any(each.model for each in wanted)
    yield from (each for each in every if each in wanted or (each.name == MODEL and needed))


def _command(experiment: Experiment, config: ConfigDict, folder: pathlib.Path, configs: str = "experiments/configs") -> list[str]:
    """The command line after `python`."""
    preset = experiment.presets.get(config.preset, config.preset)
    words = ["-m", f"experiments.{experiment.binary}", f"--config={configs}/{experiment.binary}.py:{preset}", *experiment.settings]
    words += experiment.shorter if config.preset == "digits" else ()
    if experiment.model:
        words.append(f"--config.{experiment.model}={config.model or folder / MODEL}")
    if config.preset in experiment.takes:
        key, pattern = experiment.takes[config.preset]
        words += [f"--config.{key}={file.parent}" for file in sorted(folder.glob(f"{pattern}/model.safetensors"))[:1]]
    if config.data and experiment.takes_data:
        words.append(f"--config.data.path={config.data}")
    return [*words, f"--workdir={folder / experiment.name}", "--resume"]


def _run(experiment: Experiment, config: ConfigDict, folder: pathlib.Path) -> bool:
    """Run it to its end; whether it got there."""
    print(f"\n== {experiment.name}", flush=True)
    began = time.perf_counter()
    configs = str(pathlib.Path(__file__).parent / "configs")
    status = subprocess.run([sys.executable, *_command(experiment, config, folder, configs)], check=False).returncode
    if status in (Exit.INTERRUPTED, Exit.STOPPED, -2, -15):
        raise KeyboardInterrupt
    print(f"== {experiment.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return status == 0


def _summary(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def _row(finding: Finding, experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    verdict = summary.get("verdict") or {"outcome": None, "why": None}
    return {
        "finding": finding.heading,
        "experiment": experiment.name,
        "verdict": verdict["outcome"],
        "here": summary["takeaway"],
        "why": verdict["why"],
        "seconds": summary["wall_seconds"],
    }


def _short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "finding": row["finding"],
            "experiment": row["experiment"].replace("_", " "),
            "verdict": row["verdict"] or "–",
            "minutes": round(row["seconds"] / 60, 1),
        }
        for row in rows
    ]


def _takeaway(preset: str, rows: list[dict[str, Any]]) -> str:
    outcomes = [row["verdict"] for row in rows if row["verdict"]]
    told = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    return f"Of {len(outcomes)} answers on {preset}: {', '.join(told)}."


def _sections(experiment: Experiment, folder: pathlib.Path, summary: dict[str, Any], command: list[str]) -> list[Section]:
    """Sections of the report on an experiment: its finding, figures, table and command."""
    verdict = summary.get("verdict")
    sections = [Section(experiment.name.replace("_", " ").capitalize(), summary["takeaway"], level=3)]
    if verdict:
        sections.append(Section("", f"Why {verdict['outcome']!r}: {verdict['why']}."))
    if experiment.table:
        sections.append(Section("", "", table=_table(folder / experiment.table)))
    for name, what in experiment.figures.items():
        found = sorted(folder.glob(name))[-1:] if "*" in name else [folder / "figures" / f"{name}.svg"]
        sections += [Section("", f"{what}:", figure, alt=what) for figure in found]
    sections.append(Section("", f"Made in {summary['wall_seconds'] / 60:.1f} minutes by", command=shlex.join(["python", *command])))
    return sections


def _table(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a `.csv`, its numbers as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text or None


if __name__ == "__main__":
    app.main("reproduce", run, live=LIVE, free=FREE, on_disk=ON_DISK)
