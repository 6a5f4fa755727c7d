"""Inspection of data before training on them: ranges, statistics, spectrum, classes, duplicates, and what is likely to be wrong.

    python -m experiments.inspect_data                                                # digits, in a few seconds
    python -m experiments.inspect_data --config.data.path=FILE_OR_FOLDER              # yours: docs/data.md
    python -m experiments.inspect_data --config=experiments/configs/inspect_data.py:fashion_mnist

Prints what it finds, and writes summary.json, classes.csv, channels.csv, spectrum.csv, figures/ and report.html to --workdir
(runs/inspect_data).
"""

import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import open_data
from flowjax import data
from flowjax.analysis.inspection import NEAR, Inspection, inspect, layout, value_scale
from flowjax.analysis.near_duplicates import Groups, find_groups
from flowjax.reporting import data_figures, groups_report
from flowjax.reporting.page import Section
from flowjax.reporting.strip import rows_figure
from flowjax.reporting.workdir import WorkDir


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    records = open_data(config.data, warn=False)
    found = inspect(records, max_compared=config.max_compared, num_queries=config.num_queries, seed=config.seed, progress=app.progress)
    facts = _facts(records, found)
    warnings = found.warnings
    groups = _groups(config, records, found)
    if groups is not None:
        sizes = [len(members) for members in groups.largest(records.n)]
        facts["near-duplicate groups"] = f"{len(sizes):,}, of {sum(sizes):,} samples; the largest has {sizes[0]:,} (groups.csv)"
        workdir.write_csv("groups.csv", groups_report.group_rows(groups))
    for name, value in facts.items():
        print(f"{name:<24}{value}")
    for warning in warnings:
        print(f"warning: {warning}")
    troubles = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}: {warnings[0]}" if warnings else "nothing looks wrong"
    size = f"{found.n:,} samples of {found.d:,} values, of which {found.effective_dimension:.0f} dimensions are effective"
    takeaway = f"{records.name}: {size}; {troubles}."
    origin = app.provenance("inspect_data", config, started)
    channels = [{"channel": c, "mean": float(found.mean[c]), "std": float(found.std[c])} for c in range(len(found.mean))]
    workdir.write_csv("channels.csv", channels)
    _write_tables(workdir, records, found)
    workdir.write_json(
        "summary.json",
        {
            "dataset": records.name,
            "n": found.n,
            "d": found.d,
            "shape": found.shape,
            "stored_dtype": str(records.rows.dtype),
            "num_classes": records.num_classes,
            "classes": found.classes,
            "class_counts": found.class_counts,
            "digest": found.digest,
            "taken_for": records.provenance.get("taken_for"),
            "layout": layout(records),
            "values": value_scale(records, found),
            "label_mapping": records.provenance.get("label_mapping"),
            "range": (found.low, found.high),
            "mean": found.mean,
            "std": found.std,
            "effective_dimension": found.effective_dimension,
            "components_for_90_percent": found.components_for(0.9),
            "components_for_99_percent": found.components_for(0.99),
            "duplicates": found.duplicates,
            "duplicates_across_classes": found.duplicates_across_classes,
            "near_duplicates": found.near_duplicates,
            "groups": None if groups is None else [len(members) for members in groups.largest(records.n)],
            "warnings": warnings,
            "takeaway": takeaway,
            "units": {
                "digest": "SHA-256 of the samples as a model sees them, in whatever order and container they lie",
                "class_counts": "samples of each of the labels in classes",
                "range, mean, std": "the model's values, after normalisation",
                "near_duplicates": f"share nearer than {NEAR} of 2 tr Cov",
            },
            "provenance": dict(records.provenance),
            **origin,
        },
    )
    sections = [
        Section("What was found", "Values are the model's, after normalisation.", table=[{"": k, "value": v} for k, v in facts.items()]),
        *([Section("Warnings", "What is likely to be wrong.", table=[{"warning": text} for text in warnings])] if warnings else []),
        *_figures(config, workdir, records, found),
        *([] if groups is None else [_groups_section(workdir, records, groups)]),
        Section("By channel", "Over all samples and places.", table=channels[:64]),
    ]
    workdir.write_report("Your data", takeaway, sections, origin)
    return takeaway


def _groups(config: ConfigDict, records: data.Records, found: Inspection) -> Groups | None:
    """The groups of near-duplicates, of data that fit in memory."""
    if records.n > config.max_grouped or not (found.duplicates or found.near_duplicates):
        return None
    return find_groups(records.load(progress=app.progress("reading")).data, seed=config.seed, progress=app.progress("near-duplicates"))


def _groups_section(workdir: WorkDir, records: data.Records, groups: Groups) -> Section:
    shown = groups_report.shown_members(groups)
    members = [records.normalization(records.read(index)) for index in shown]
    span = records.value_range or (float(members[0].min()), float(members[0].max()))
    sizes = [len(part) for part in groups.largest(len(shown))]
    figure = workdir.save_figure("groups", groups_report.groups_figure(members, sizes, span))
    text = f"The largest groups of samples that near-duplicates connect: distances up to {groups.delta[-1] / groups.scale:.2g} √(2 tr Cov)."
    return Section("Groups of near-duplicates", text, figure, alt="Members of the largest groups of near-duplicates")


def _write_tables(workdir: WorkDir, records: data.Records, found: Inspection) -> None:
    workdir.write_csv("spectrum.csv", [{"rank": k + 1, "eigenvalue": float(value)} for k, value in enumerate(found.eigenvalues)])
    if found.classes is not None and found.class_counts is not None:
        rows = zip(found.classes.tolist(), found.class_counts.tolist(), strict=True)
        workdir.write_csv(
            "classes.csv", [{"label": k, "class": records.class_names[k] if records.class_names else str(k), "samples": n} for k, n in rows]
        )


def _facts(records: data.Records, found: Inspection) -> dict[str, Any]:
    """The main facts of a data set, as text."""
    counts = found.class_counts
    return {
        "samples": f"{found.n:,} of shape {found.shape}, D = {found.d:,}, stored as {records.rows.dtype}",
        **({"taken for": records.provenance["taken_for"]} if "taken_for" in records.provenance else {}),
        "layout": layout(records),
        "values": value_scale(records, found),
        **({"labels": records.provenance["label_mapping"]} if "label_mapping" in records.provenance else {}),
        "normalisation": records.normalization.formula,
        **({"statistics": records.provenance["stats"]} if "stats" in records.provenance else {}),
        **({"not read": records.provenance["not_read"]} if "not_read" in records.provenance else {}),
        "range": f"{found.low:.4g} to {found.high:.4g}",
        "mean": _span(found.mean),
        "standard deviation": _span(found.std),
        "classes": "no labels" if counts is None else f"{len(counts):,}, of {counts.min():,} to {counts.max():,} samples",
        "effective dimension": f"{found.effective_dimension:.1f}; {found.components_for(0.9):,} components hold 90 % of the variance, "
        f"{found.components_for(0.99):,} hold 99 % (from {found.compared:,} samples)",
        "exact duplicates": f"{found.duplicates:,}, {found.duplicates_across_classes:,} of them across classes",
        "near duplicates": f"{found.near_duplicates:.1%} of {len(found.nearest):,} samples looked at, among {found.compared:,}",
    }


def _span(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{values.min():.4g} to {values.max():.4g} over {len(values)} channels"


def _figures(config: ConfigDict, workdir: WorkDir, records: data.Records, found: Inspection) -> list[Section]:
    shown = np.random.default_rng(config.seed).choice(records.n, min(config.strip_samples, records.n), replace=False)
    span = records.value_range or (found.low, found.high)
    drawings = {}
    if config.strip_samples:
        pairs = found.nearest_pairs[: config.strip_samples]
        rows = {"at random": shown, **({"closest": pairs[:, 0], "to these": pairs[:, 1]} if len(pairs) == len(shown) else {})}
        images = {name: records.normalization(records.read(index)) for name, index in rows.items()}
        drawings["samples"] = (
            rows_figure(images, span),
            "Samples",
            "Some at random; below, those that are closest to another (but not equal to it), and that other.",
        )
    drawings["spectrum"] = (
        data_figures.spectrum_figure(found.eigenvalues, found.effective_dimension),
        "Spectrum",
        "Eigenvalues of the covariance. The fewer dimensions are effective, the later the turning point.",
    )
    if len(found.nearest):
        drawings["nearest"] = (
            data_figures.nearest_figure(found.nearest, NEAR),
            "How near the nearest is",
            "Near duplicates decide what memorisation means: a model that returns one of them has not learned to generalise.",
        )
    if found.classes is not None and found.class_counts is not None:
        drawings["classes"] = (
            data_figures.classes_count_figure(found.classes, found.class_counts),
            "Samples by class",
            "How many each label has.",
        )
    return [
        Section(heading, text, workdir.save_figure(name, figure), alt=f"{heading}: {text}")
        for name, (figure, heading, text) in drawings.items()
    ]


if __name__ == "__main__":
    app.main("inspect_data", run)
