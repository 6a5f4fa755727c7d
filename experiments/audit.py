"""Is a model copying its training data?

    python -m experiments.audit --config.samples=FILE_OR_FOLDER --config.data.path=TRAINING_DATA              # of any framework
    python -m experiments.audit ... --config.heldout=FILE_OR_FOLDER                                           # data it never saw
    python -m experiments.audit ... --config.samples="('ten@10000', 'hundred@100000')"                        # checkpoints: PATH@STEPS
    python -m experiments.audit ... --config.plan=True                                                        # time and memory, and ends
    python -m experiments.audit                                                                               # tried on planted copies

Looks up, for every sample and its mirror image, the nearest training samples, exactly. A sample is called a copy where the nearest is far
nearer than the next that is none of its near-duplicates; how often unseen data pass the same threshold is the baseline, and the share of
copies is what is beyond it. Writes config.json, summary.json, copies.csv (every sample, ranked), shares.csv, figures/ and report.html to
--workdir (runs/audit). What it can tell, and what not: docs/audit.md.
"""

import itertools
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.audit_spaces import Space, feature_array, space_of
from experiments.common.data import load_beside, open_data
from experiments.common.planted_copies import changed
from flowjax import data
from flowjax.analysis.inspection import NEAR
from flowjax.analysis.statistics import Share, share
from flowjax.metrics import copying
from flowjax.metrics.copying import COPY_RATIO, Nearest
from flowjax.metrics.neighbours import Cost, NeighbourSearch
from flowjax.reporting import audit_report
from flowjax.reporting.audit_report import Audited
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir

TOLD = 60
"""Seconds: a search that will take longer says so before it begins."""
_SMALL = 3e11  # values of pairs, below which a search takes less than that on any machine
LIKE = 0.6
"""Samples whose standard deviation is below this share of the data's, or the other way round, are of another scale."""


class Given(NamedTuple):
    """What is compared."""

    kept: Int[np.ndarray, " N"]
    """The rows that are the training set."""
    samples: dict[str, Float[np.ndarray, "B *shape"]]
    """By name; the steps that each was trained for are in `steps`."""
    steps: dict[str, int | None]
    heldout: Float[np.ndarray, "M *shape"] | None
    planted: int | None
    """How many of the samples are copies, where that is known."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    records = open_data(config.data)
    given = _given(config, records)
    space = space_of(config.features, records, given.kept, config.seed)
    asked, search = _asked(config, records, given, space), NeighbourSearch(space.training)
    if config.plan or asked.pairs_of(search) > _SMALL:
        cost = _cost(asked, search, given)
        if config.plan:
            return _planned(config, workdir, records, _told(asked, search, cost), cost, started)
        if cost.seconds > TOLD:
            print(_told(asked, search, cost), file=sys.stderr, flush=True)
    found, heldout, training = _looked_up(given, asked, search)
    duplicates = training.distance == 0
    training = training.part(~duplicates)
    unseen = training if heldout is None else heldout
    limit = copying.threshold(unseen.ratio)
    audited = [Audited(name, given.steps[name], near, limit, unseen.ratio) for name, near in found.items()]

    takeaway = _takeaway(audited[-1], "held-out data" if heldout is not None else "training samples among the others", given.planted)
    origin = app.provenance("audit", config, started)
    rows = [row for one in audited for row in audit_report.copy_rows(one, given.kept, records.labels, len(audited) > 1)]
    shares = [audit_report.share_row(one) for one in audited]
    workdir.write_csv("copies.csv", rows)
    workdir.write_csv("shares.csv", shares)
    last = audited[-1]
    by_class = audit_report.class_rows(last, given.kept, records.labels, records.class_names)
    baselines = {"training": training} | ({} if heldout is None else {"heldout": heldout})
    summary = _summary(records, given, space, audited, baselines, float(duplicates.mean()))
    workdir.write_json("summary.json", summary | {"takeaway": takeaway, **origin})
    sections = [
        *_figures(config, workdir, records, given, audited, baselines),
        Section("In numbers", _IN_NUMBERS, table=shares),
        *([Section("By class", "The class of the nearest training sample.", table=by_class)] if by_class else []),
        Section(
            "The baseline",
            _baseline_text(last, float(duplicates.mean()), training, heldout),
            table=audit_report.baseline_rows(baselines, limit),
        ),
        Section(
            "The nearest", "The first of copies.csv, which has all samples and more columns.", table=[_shown(row) for row in rows[:16]]
        ),
        Section("What this can tell", _LIMITS.format(space=space.name)),
    ]
    workdir.write_report("Is it copying?", takeaway, sections, origin)
    return takeaway


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("sample", "nearest", "ratio", "passes", "p", "mirrored")}


def _summary(
    records: data.Records, given: Given, space: Space, audited: list[Audited], baselines: dict[str, Nearest], duplicates: float
) -> dict[str, Any]:
    """What is found, but for the sentence and the run's provenance."""
    last = audited[-1]
    return {
        "dataset": records.name,
        "n": len(given.kept),
        "d": records.d,
        "distances": space.name,
        "threshold": last.threshold,
        "baseline": "training" if given.heldout is None else "heldout",
        "copies": last.excess._asdict(),
        "flagged": last.share._asdict(),
        "below_a_third": share(last.found.below_a_third)._asdict(),
        "mirrored": int((last.copies & last.found.mirrored).sum()),
        "of_samples_with_near_duplicates": int((last.copies & (last.found.twins > 0)).sum()),
        "baselines": {
            name: {
                "n": len(one.ratio),
                "flagged": share(one.ratio <= last.threshold)._asdict(),
                "below_a_third": float(np.mean(one.below_a_third)),
            }
            for name, one in baselines.items()
        },
        "training_duplicates": {"exact": duplicates, "near": float((baselines["training"].twins > 0).mean())},
        "planted": given.planted,
        "checkpoints": [audit_report.share_row(one) for one in audited] if len(audited) > 1 else None,
        "units": {"copies, flagged": "share of the samples", "near": f"squared distance at most {NEAR} of 2 tr Cov"},
        "provenance": dict(records.provenance),
    }


_IN_NUMBERS = (
    "passed: the share of samples whose ratio is at most the threshold. Copies: the share beyond what unseen data explain, "
    "(passed - unseen) / (1 - unseen), with 95 % from both."
)
_LIMITS = (
    "Distances are between {space}. Copies of whole samples are found, with noise, in JPEG, and mirrored where that was looked for. Crops, "
    "shifts, parts of an image, and a style are not. A small share may be missed: the upper end of the interval is what cannot be excluded."
)


def _given(config: ConfigDict, records: data.Records) -> Given:
    if config.mirror not in ("auto", "yes", "no"):
        raise ValueError(f"mirror = {config.mirror!r}: expected auto, yes or no")
    if not config.samples:
        return _planted(config, records)
    samples, steps = {}, {}
    for told in map(str, config.samples):
        path, _, number = told.rpartition("@") if "@" in told else (told, "", "")
        if number and not number.isdigit():
            raise ValueError(f"samples: {told!r}: expected PATH, or PATH@STEPS with the steps that the model was trained for")
        if told in samples:
            raise ValueError(f"samples: {told!r} is named twice")
        samples[told], steps[told] = _beside(config, records, path, "samples"), int(number) if number else None
    order = sorted(samples, key=lambda name: steps[name] or 0)
    heldout = _beside(config, records, config.heldout, "heldout") if config.heldout else None
    return Given(np.arange(records.n), {name: samples[name] for name in order}, steps, heldout, None)


def _planted(config: ConfigDict, records: data.Records) -> Given:
    """Unseen samples, some of them replaced by copies of training samples."""
    count, copies = config.planted.samples, config.planted.copies
    if not 2 <= count <= records.n // 3 or not 0 <= copies <= count:
        raise ValueError(
            f"planted.samples = {count}, planted.copies = {copies}: expected 2 to a third of the {records.n:,} samples, and at most as "
            "many copies; or give --config.samples=FILE_OR_FOLDER"
        )
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(records.n)
    kept = np.sort(order[2 * count :])
    read = lambda index: records.normalization(records.read(np.sort(index)))  # noqa: E731
    samples, heldout = read(order[:count]), read(order[count : 2 * count])
    low, high = records.value_range or (float(samples.min()), float(samples.max()))
    originals = read(rng.choice(kept, copies, replace=False))
    if copies:
        samples[rng.choice(count, copies, replace=False)] = changed(originals, config.planted, (low, high), config.seed)
    return Given(kept, {"planted": samples}, {"planted": None}, heldout, copies)


def _beside(config: ConfigDict, records: data.Records, path: str, key: str) -> Float[np.ndarray, "B *shape"]:
    """Samples of the data's kind from elsewhere."""
    found = load_beside(config.data, records, path).data.astype(np.float32)
    if len(found) < 2:
        raise ValueError(f"{key}: {path} holds one sample: expected at least two, of which a share can be told")
    if found.shape[1:] == (*records.shape[:-1], 3) and records.shape[-1] == 1 and (found == found[..., :1]).all():
        found = found[..., :1]  # grey, as pictures and evaluation suites keep it
    if found.shape[1:] != records.shape:
        if tuple(n for n in found.shape[1:] if n > 1) != tuple(n for n in records.shape if n > 1):
            raise ValueError(
                f"{key}: {path} holds samples of shape {found.shape[1:]}, the data {records.shape}: expected the same; resize them "
                "(--config.data.resolution), or set the layout"
            )
        found = found.reshape(-1, *records.shape)
    if config.check_scale:
        _check_scale(found, records, f"{key}: {path}")
    return found


def _check_scale(values: np.ndarray, records: data.Records, name: str) -> None:
    some = np.unique(np.linspace(0, records.n - 1, 256).astype(int))
    like = records.normalization(records.read(some)).astype(np.float64)
    mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if not LIKE * like.std() <= spread <= like.std() / LIKE or abs(mean - like.mean()) > like.std():
        raise ValueError(
            f"{name}: values span [{values.min():.3g}, {values.max():.3g}] with mean {mean:.3g} and standard deviation {spread:.3g}, the "
            f"data's [{like.min():.3g}, {like.max():.3g}] with {like.mean():.3g} and {like.std():.3g}: bring them to the data's scale "
            "(uint8 is scaled to [-1, 1]), or set --config.check_scale=False"
        )


class _Asked(NamedTuple):
    """What is looked up: samples, then held-out data, then training samples among the others."""

    coordinates: Float[np.ndarray, "B F"]
    mirrored: Float[np.ndarray, "B F"] | None
    own: Int[np.ndarray, " B"]
    """The row of the training set that each of them is; -1: none."""

    def pairs_of(self, search: NeighbourSearch) -> float:
        """Values of all pairs."""
        return float(self.coordinates.size) * search.training.n * (1 if self.mirrored is None else 2)


def _asked(config: ConfigDict, records: data.Records, given: Given, space: Space) -> _Asked:
    drawn = np.sort(np.random.default_rng(config.seed).choice(len(given.kept), min(config.num_baseline, len(given.kept)), replace=False))
    if len(drawn) < 2:
        raise ValueError(f"num_baseline = {config.num_baseline}: expected at least 2, of a training set of as many")
    sets = [*given.samples.values(), *([] if given.heldout is None else [given.heldout])]
    flips = config.mirror == "yes" or (config.mirror == "auto" and copying.is_image(records.shape))
    if space.of is None:
        coordinates, mirrored = _given_features(config, given), None
        coordinates = np.concatenate([coordinates, space.training.read(drawn)])
    else:
        sets = [*sets, records.normalization(records.read(given.kept[drawn]))]
        coordinates = np.concatenate([space.of(values) for values in sets])
        mirrored = np.concatenate([space.of(np.flip(values, 2)) for values in sets]) if flips else None
    own = np.full(len(coordinates), -1, np.int64)
    own[-len(drawn) :] = drawn
    return _Asked(coordinates, mirrored, own)


def _cost(asked: _Asked, search: NeighbourSearch, given: Given) -> Cost:
    """Of the whole audit but for its figures: the samples, and what is looked up of them, are in memory beside the search."""
    ways = 1 if asked.mirrored is None else 2
    found = search.cost(asked.coordinates, copying.FIRST)
    held = sum(values.nbytes for values in given.samples.values()) + ways * asked.coordinates.nbytes
    return Cost(ways * found.seconds, ways * found.bytes + held)


def _told(asked: _Asked, search: NeighbourSearch, cost: Cost) -> str:
    minutes = f"{cost.seconds / 60:.0f} min" if cost.seconds > 90 else f"{cost.seconds:.0f} s"
    return (
        f"{len(asked.own):,} samples, held-out and baseline ones included, against {search.training.n:,} x {search.training.d:,}: about "
        f"{minutes} and {cost.bytes / 1e9:.1f} GB here, by a part that was timed; groups of near-duplicates take more."
    )


def _planned(config: ConfigDict, workdir: WorkDir, records: data.Records, takeaway: str, cost: Cost, started: float) -> str:
    """Report what an audit will take, instead of doing it."""
    origin = app.provenance("audit", config, started)
    found = {"dataset": records.name, "n": records.n, "d": records.d, "seconds": cost.seconds, "bytes": cost.bytes}
    workdir.write_json("summary.json", {**found, "takeaway": takeaway, **origin})
    workdir.write_report("What an audit will take", takeaway, [Section("In numbers", "", table=[found])], origin)
    return takeaway


def _looked_up(given: Given, asked: _Asked, search: NeighbourSearch) -> tuple[dict[str, Nearest], Nearest | None, Nearest]:
    """The neighbours of the samples, of held-out data, and of training samples among the others: all in one pass over the training set."""
    found = copying.nearest(search, asked.coordinates, asked.mirrored, own=asked.own, progress=app.progress("training set"))
    ends = np.cumsum([0, *(len(values) for values in given.samples.values())])
    samples = {name: found.part(slice(*pair)) for name, pair in zip(given.samples, itertools.pairwise(ends), strict=True)}
    baseline = slice(len(asked.own) - int((asked.own >= 0).sum()), None)
    heldout = None if given.heldout is None else found.part(slice(ends[-1], baseline.start))
    return samples, heldout, found.part(baseline)


def _given_features(config: ConfigDict, given: Given) -> np.ndarray:
    block = config.features
    if len(block.samples) != len(given.samples):
        raise ValueError(f"features.samples names {len(block.samples)} files, samples {len(given.samples)}: expected one for each")
    parts = [feature_array(str(path), len(x), "samples") for path, x in zip(block.samples, given.samples.values(), strict=True)]
    return np.concatenate(parts if given.heldout is None else [*parts, feature_array(block.heldout, len(given.heldout), "heldout")])


def _baseline_text(last: Audited, duplicates: float, training: Nearest, heldout: Nearest | None) -> str:
    raised = "a third, the literature's"
    if last.threshold != COPY_RATIO:
        raised = f"raised from a third until unseen data pass {copying.FALSE_POSITIVES:.1%}"
    of_twins = int((last.copies & (last.found.twins > 0)).sum())
    text = (
        f"A sample passes at a ratio of at most {last.threshold:.3g}: {raised}. The ratio is that of the distance from the nearest "
        f"training sample to that from the next that is none of its near-duplicates. {duplicates:.1%} of training samples are there twice, "
        f"and {np.mean(training.twins > 0):.1%} of the others have near-duplicates; {of_twins:,} of the {int(last.copies.sum()):,} samples "
        "that pass are nearest to one of those."
    )
    return text if heldout is None else f"{text} Of held-out data {np.mean(heldout.distance == 0):.1%} are training samples."


def _takeaway(last: Audited, baseline: str, planted: int | None) -> str:
    """What the evidence allows to say."""
    n, unseen = len(last.found.ratio), last.unseen
    head = f"{_percent(last.share)} of {n:,} samples pass for copies, {_percent(unseen)} of {baseline}"
    if planted is not None:
        share_of = planted / n
        held = "holds" if last.excess.low <= share_of <= last.excess.high else "misses"
        return f"{head}: {_percent(last.excess)} are copies, an interval that {held} the {planted:,} planted ({share_of:.1%})."
    if last.excess.low > 0:
        return f"{head}: about {_percent(last.excess)} are copies of training samples."
    return f"{head}: no sign of copying; a share above {last.excess.high:.1%} can be excluded."


def _percent(part: Share) -> str:
    return f"{part.value:.1%} (95 %: {100 * part.low:.1f} to {100 * part.high:.1f})"


def _figures(
    config: ConfigDict, workdir: WorkDir, records: data.Records, given: Given, audited: list[Audited], baselines: dict[str, Nearest]
) -> list[Section]:
    last = audited[-1]
    order = np.argsort(last.found.ratio, kind="stable")[: config.show]
    originals = records.normalization(records.read(given.kept[last.found.row[order]]))
    drawn = [
        Section(
            "The samples that come nearest",
            "By rising ratio, row by row; below each its nearest training sample, as it is; the number is the ratio, red where it passes.",
            workdir.save_figure(
                "nearest", audit_report.pairs_figure(last, order, given.samples[last.name][order], originals, records.value_range)
            ),
            alt="Generated samples above their nearest training samples",
        ),
        Section(
            "How near unseen data come",
            "The share of samples below each ratio. Where the samples' curve runs above that of unseen data, there are copies.",
            workdir.save_figure("ratios", audit_report.ratios_figure(last, {name: one.ratio for name, one in baselines.items()})),
            alt="Distribution of the ratio of the two nearest distances",
        ),
    ]
    if len(audited) > 1:
        figure = workdir.save_figure("steps", audit_report.steps_figure(audited))
        drawn.append(
            Section("Over training", "The share of copies beyond the baseline, 95 %.", figure, alt="Share of copies by checkpoint")
        )
    return drawn


if __name__ == "__main__":
    app.main("audit", run)
