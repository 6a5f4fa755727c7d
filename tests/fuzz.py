"""Random attacks on the oracle, judged in float64: python -m tests.fuzz --minutes=5 --seed=0

Each round draws a data set (clusters, near-duplicates, ties, constant data, lattices, sparse bytes, scales from 1e-18 to 1e18, ...), a
path, labels, a kind of oracle (in memory, pruned, over a mesh, from disk, the bare `posterior`) and queries on and off the path, and
compares every output with `tests.float64_oracle`, which shares no code with the library. A fault is printed with the seed that repeats it;
the last line says how many queries were judged. Exit status 1 if there was a fault.
"""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import collections
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from flowjax.oracle import Oracle
from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving
from kernels.posterior import posterior
from tests import float64_oracle as exact
from tests import tolerances

PATHS = {exact.RECTIFIED: RectifiedFlow(), exact.COSINE: Cosine(), exact.VP: VariancePreserving()}
KINDS = ("memory", "pruned", "mesh", "disk", "posterior")
B = 64
"""Queries of a round."""
ALIKE = 16
"""Rounds, one after the other, that share shapes, path and kind of oracle, and so their programs."""
SIZES = (
    (1, 3),
    (2, 2),
    (17, 1),
    (65, 64),
    (300, 64),
    (500, 784),
    (100, 5000),
    (3000, 3),
    (2000, 191),
    (20_000, 2),
    (20_000, 4),
    (10_000, 32),
)
"""N and D."""
SCALES = (1e-18, 1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12, 1e18)
TIMES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 0.999)


class Round(NamedTuple):
    """One data set with queries, and how an oracle of it is made."""

    family: str
    kind: str
    path: str
    scale: float
    data: np.ndarray
    labels: np.ndarray | None
    x: np.ndarray
    t: np.ndarray
    label: np.ndarray | None

    def __str__(self) -> str:
        n, d = self.data.shape
        labels = "" if self.labels is None else ", labels"
        return f"{self.family}, {n} x {d}, {self.data.dtype}, scale {self.scale:g}, {self.path}, {self.kind}{labels}"


def clusters(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """A few values, each with many near-copies."""
    values = int(rng.choice([5, 10, 20, 50]))
    spread = 10.0 ** rng.uniform(-7, -1)
    return rng.standard_normal((values, d))[np.arange(n) % values] + spread * rng.standard_normal((n, d))


def ties(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """One-hot rows, most of them several times."""
    return np.eye(d)[rng.integers(d, size=n)]


def sparse(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Bytes, most of them 0, with copies."""
    rows = (rng.integers(0, 256, (n, d)) * (rng.uniform(size=(n, d)) < 0.1)).astype(np.uint8)
    return rows[rng.integers(max(1, n // 3), size=n)]


FAMILIES = {
    "Gaussians": lambda rng, n, d: rng.standard_normal((n, d)),
    "clusters": clusters,
    "near-duplicates": lambda rng, n, d: rng.standard_normal(d) + 10.0 ** rng.uniform(-8, -3) * rng.standard_normal((n, d)),
    "copies": lambda rng, n, d: rng.standard_normal((max(1, n // 20), d))[rng.integers(max(1, n // 20), size=n)],
    "ties": ties,
    "constant": lambda rng, n, d: np.full((n, d), rng.standard_normal()),
    "lattice": lambda rng, n, d: rng.integers(-2, 3, (n, d)) / 2,
    "simplex": lambda rng, n, d: rng.dirichlet(np.ones(d), n),
    "sparse bytes": sparse,
    "bytes": lambda rng, n, d: rng.integers(0, 256, (n, d)).astype(np.uint8),
    "samples of many scales": lambda rng, n, d: rng.standard_normal((n, d)) * np.exp(rng.uniform(-6, 6, (n, 1))),
    "an outlier": lambda rng, n, d: rng.standard_normal((n, d)) * np.where(np.arange(n) == n // 2, 1000, 1)[:, None],
    "far from the origin": lambda rng, n, d: rng.standard_normal((n, d)) + 10.0 ** rng.uniform(1, 4),
    "a line": lambda rng, n, d: rng.uniform(-1, 1, (n, 1)) * rng.standard_normal(d),
}


def draw(seed: int) -> Round:
    """The round of this seed."""
    rng = np.random.default_rng(seed // ALIKE)
    n, d = SIZES[rng.integers(len(SIZES))]
    kind, path = str(rng.choice(KINDS)), str(rng.choice(exact.NAMES, p=[0.6, 0.2, 0.2]))
    labelled = n >= 65 and kind != "posterior" and rng.uniform() < 0.3
    of_bytes = rng.uniform() < 0.2
    rng = np.random.default_rng(seed)
    family = str(rng.choice([name for name in FAMILIES if ("bytes" in name) == of_bytes]))
    data = FAMILIES[family](rng, n, d)
    scale = 1.0
    if data.dtype != np.uint8:
        scale = float(rng.choice(SCALES)) if rng.uniform() < 0.4 else 1.0
        data = (scale * data).astype(np.float32)
    labels = rng.integers(0, 4, n).astype(np.int32) if labelled else None
    if labels is not None:
        labels[:4] = range(4)
    label = None if labels is None else rng.integers(-1, 4, B).astype(np.int32)
    t = rng.choice(TIMES, B).astype(np.float32)
    c = [exact.coefficients(path, v) for v in t]
    alpha, sigma = (np.array([getattr(v, name) for v in c])[:, None] for name in ("alpha", "sigma"))
    chosen = rng.integers(n, size=B)
    if labels is not None and label is not None:
        label = np.where(rng.uniform(size=B) < 0.7, labels[chosen], label).astype(np.int32)
    own, other = data[chosen].astype(np.float64), data[rng.integers(n, size=B)].astype(np.float64)
    noise = rng.standard_normal((B, d))
    size = float(np.abs(data.astype(np.float64)).max()) or 1.0
    unit = scale if kind == "posterior" else 1.0
    choices = [
        alpha * own + unit * sigma * noise,
        alpha * own + unit * sigma * noise,
        alpha * own + size * sigma * noise,
        (own + other) / 2,
        alpha * own,
        0 * own,
        10 * size * noise,
        1e6 * size * noise,
    ]
    which = rng.integers(len(choices), size=B)
    x = np.stack([choices[which[i]][i] for i in range(B)]).astype(np.float32)
    return Round(family, kind, path, scale, data, labels, x, t, label)


def on_kind(kind: str, data: np.ndarray, labels: np.ndarray | None, path: Path) -> Oracle:
    """An oracle of this kind: "memory", "pruned", "mesh" or "disk", the last with a budget of a few chunks."""
    match kind:
        case "memory":
            return Oracle(data, labels, path=path)
        case "pruned":
            return Oracle(data, labels, path=path, implementation="pruned")
        case "mesh":
            shards = max(s for s in (1, 2, 4) if s <= len(data))
            mesh = jax.make_mesh((shards, 2), ("samples", "queries"), devices=jax.devices()[: 2 * shards])
            return Oracle(data, labels, path=path, mesh=mesh)
        case "disk":
            budget = 2**22 + 2 * 64 * 8 * 16 * data.shape[1] + 40 * len(data)
            return Oracle.from_source(data, labels, path=path, budget=budget)
    raise ValueError(f"kind must be memory, pruned, mesh or disk, got {kind!r}")


def judged(one: Round) -> dict[str, np.ndarray]:
    """Errors in units of what is allowed, `[B]` for each output."""
    if one.kind == "posterior":
        return _judged_posterior(one)
    wanted = exact.oracle(one.data, one.x, one.t, one.path, labels=one.labels, label=one.label)
    found = on_kind(one.kind, one.data, one.labels, PATHS[one.path])(one.x, one.t, one.label)
    size = float(tolerances.norms(one.data).max())
    return tolerances.errors(found, wanted, one.x, one.t, one.path, size)


def _judged_posterior(one: Round) -> dict[str, np.ndarray]:
    """`posterior` with the noise in the data's own unit: as the rectified flow of data, x and σ all scaled."""
    c = [exact.coefficients(one.path, v) for v in one.t]
    alpha, sigma = (np.array([getattr(v, name) for v in c], np.float32) for name in ("alpha", "sigma"))
    sigma = (sigma * np.float32(one.scale)).astype(np.float32)
    found = posterior(one.x, alpha, sigma, one.data)
    rows = [exact.posterior(one.data.astype(np.float64), one.x[i], alpha[i], sigma[i]) for i in range(B)]
    wanted = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    got = {key: np.asarray(value, np.float64) for key, value in vars(found).items()}
    # What a velocity is to be exact to: ‖E[y | x] - x / α‖, the noise that x carries.
    moving = tolerances.norms(wanted["denoised"] - one.x / np.maximum(alpha, 1e-30)[:, None].astype(np.float64))
    carried, doubt = np.maximum(moving, one.scale * 1e-3), 8 * wanted["doubt"]
    clear = wanted["top1_weight"] - wanted["runner_up"] > 1e-4 + doubt
    rounding = 2.0**-24 * tolerances.norms(one.x)
    variance = np.maximum((1e-4 + doubt) * wanted["variance"], 1e-6 * (moving**2 + wanted["variance"] + rounding**2 + one.scale**2 * 1e-6))
    of_denoised = 1e-5 * carried + 1e-7 * tolerances.norms(wanted["denoised"]) + doubt * np.sqrt(wanted["variance"])
    found_errors = {
        "denoised": tolerances.norms(got["denoised"] - wanted["denoised"]) / of_denoised,
        "log_density": np.abs(got["log_density"] - wanted["log_density"]) / (1e-4 * np.maximum(np.abs(wanted["log_density"]), 1)),
        "entropy": np.abs(got["entropy"] - wanted["entropy"]) / (1e-4 + doubt * (1 + wanted["entropy"])),
        "top1_weight": np.abs(got["top1_weight"] - wanted["top1_weight"]) / (1e-4 + doubt),
        "effective_samples": np.abs(got["effective_samples"] / wanted["effective_samples"] - 1) / (2e-4 + doubt),
        "variance": np.abs(np.minimum(got["variance"], tolerances.LARGEST) - np.minimum(wanted["variance"], tolerances.LARGEST))
        / np.maximum(variance, tolerances.SMALLEST),
        "top1_index": np.where(clear & (got["top1_index"] != wanted["top1_index"]), np.inf, 0.0),
    }
    return {key: np.where(np.isnan(value), np.inf, value) for key, value in found_errors.items()}


def run(seed: int) -> tuple[Round, list[str]]:
    """One round, and its faults in words."""
    one, faults = draw(seed), []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = judged(one)
    except Exception as error:
        return one, [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
    for key, value in found.items():
        if (bad := value > 1).any():
            worst = int(np.argmax(value))
            faults.append(f"{key}: {value[worst]:.3g} times what is allowed at t = {one.t[worst]:g}, in {bad.sum()} queries")
    return one, faults


def main() -> int:
    """Rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has the next number")
    parser.add_argument("--rounds", type=int, default=10**9, help="at most so many: --rounds=1 repeats one that failed")
    arguments: Any = parser.parse_args()
    started, judged_queries, faulty = time.monotonic(), 0, collections.Counter[str]()
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        if time.monotonic() - started > 60 * arguments.minutes:
            break
        one, faults = run(seed)
        judged_queries += B
        if faults:
            faulty[f"{one.family}, {one.kind}"] += 1
            print(f"--seed={seed}: {one}\n  " + "\n  ".join(faults), flush=True)
    for name, count in faulty.most_common():
        print(f"{count:5} rounds with faults: {name}")
    print(f"{judged_queries:,} queries judged, {sum(faulty.values())} of {judged_queries // B:,} rounds with faults")
    return 1 if faulty else 0


if __name__ == "__main__":
    raise SystemExit(main())
