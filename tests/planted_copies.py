"""How often an audit's interval holds the share of copies that was planted.

    python -m tests.planted_copies                                  # Fashion-MNIST: some minutes on two CPU cores
    python -m tests.planted_copies --data=FILE_OR_FOLDER            # of your images

Of 1,000 samples k are training images, changed as copies are: with noise of 1 or 5 % of the data's standard deviation, mirrored, in JPEG
of quality 50. The others were taken out of the training set, and so were another 1,000, the baseline. Prints, for each change and k, the
mean share that is found and how many intervals of how many hold the truth.
"""

import argparse

import numpy as np
from ml_collections import ConfigDict

from experiments.common.data import load_data
from experiments.common.planted_copies import changed
from experiments.configs.data import data_config
from flowjax.metrics import copying
from flowjax.metrics.copying import Nearest, pooled, pooling
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.reporting.tables import text_table

CHANGES = {
    "none": {},
    "noise 1 %": {"noise": 0.01},
    "noise 5 %": {"noise": 0.05},
    "mirrored": {"mirror": True},
    "JPEG 50": {"jpeg": 50},
    "mirrored, JPEG 50": {"mirror": True, "jpeg": 50},
}
PLANTED = (0, 5, 50, 500)


def held(unseen: Nearest, copies: Nearest, planted: int, size: int, draws: int, seed: int) -> dict[str, float]:
    """Of some draws of samples and baseline from what was looked up: the share found, and how often the interval holds the truth."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        order = rng.permutation(len(unseen.ratio))
        baseline = unseen.ratio[order[:size]]
        samples = np.r_[rng.choice(copies.ratio, planted, replace=False), unseen.ratio[order[size : 2 * size - planted]]]
        limit = copying.threshold(baseline)
        found.append(copying.excess(samples <= limit, baseline <= limit))
    truth = planted / size
    hold = np.mean([one.low <= truth <= one.high for one in found])
    return {"planted": truth, "found": float(np.mean([one.value for one in found])), "intervals that hold": float(hold)}


def of_copies(copies: Nearest, chosen: np.ndarray, limit: float) -> dict[str, float]:
    """The share of copies above the threshold, how many of all are nearest to their original, and how far the second nearest is."""
    lost = copies.ratio > limit
    second = (
        {f"second nearest of {name}": float(np.median(copies.second[part])) for name, part in (("missed", lost), ("found", ~lost))}
        if (lost.any() and not lost.all())
        else {}
    )
    return {"missed": float(np.mean(lost)), "nearest is the original": float(np.mean(copies.row == chosen))} | second


def main() -> None:
    """Plants, looks up, and prints."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", default="", help="file or folder of images; Fashion-MNIST without")
    flags.add_argument("--size", type=int, default=1000, help="samples, and unseen ones of the baseline")
    flags.add_argument("--draws", type=int, default=40, help="of samples and baseline, for each line")
    asked = flags.parse_args()
    whole = load_data(data_config(path=asked.data) if asked.data else data_config("fashion_mnist"))
    order = np.random.default_rng(0).permutation(whole.n)
    out = min(4 * asked.size, whole.n // 2)
    if out < 2 * asked.size:
        raise SystemExit(f"{whole.name} holds {whole.n:,} samples: expected at least {4 * asked.size:,}; give a smaller --size")
    unseen, training = whole.data[order[:out]], whole.data[order[out:]]
    sides = pooling(whole.shape)
    search = NeighbourSearch(Rows.of(pooled(training, sides)))

    def look_up(samples: np.ndarray) -> Nearest:
        return copying.nearest(search, pooled(samples, sides), pooled(np.flip(samples, 2), sides))

    others, rows, missed = look_up(unseen), [], []
    chosen = np.random.default_rng(1).choice(len(training), max(PLANTED), replace=False)
    originals = training[chosen]
    for name, change in CHANGES.items():
        block = ConfigDict({"noise": 0.0, "mirror": False, "jpeg": 0} | change)
        copies = look_up(changed(originals, block, whole.value_range or (-1.0, 1.0), seed=2))
        rows += [{"change": name} | held(others, copies, k, asked.size, asked.draws, seed=k) for k in PLANTED]
        missed.append({"change": name} | of_copies(copies, chosen, copying.threshold(others.ratio)))
    below, twins = np.mean(others.ratio < copying.COPY_RATIO), np.mean(others.twins > 0)
    print(f"{whole.name}: {len(training):,} training images {whole.shape}; {sides.words}")
    print(f"unseen images below a third: {below:.2%}; nearest to one with near-duplicates: {twins:.1%}\n{text_table(rows)}")
    print(f"each change alone, by the threshold of all unseen images\n{text_table(missed)}")


if __name__ == "__main__":
    main()
