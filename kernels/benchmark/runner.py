"""Measurements of `kernels.bench`: implementations timed in turn on one data set, and their table and figure."""

import csv
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np

from kernels.benchmark.competitors import COMPETITORS, DEFAULT, PYTORCH, Call, ours, reference_velocity, sgemms

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
COLUMNS = (
    "part",
    "n",
    "d",
    "queries",
    "t",
    "implementation",
    "seconds",
    "share_of_sgemm",
    "times_pytorch",
    "velocity_error",
    "build_seconds",
    "first_call_seconds",
)
Row = dict[str, Any]


class Comparison:
    """Implementations on one data set, each built and called once."""

    def __init__(self, data: np.ndarray, names: Iterable[str], say: Callable[[str], None]):
        self.data, self.calls = data, dict[str, Call]()
        self.build_seconds, self.first_seconds = dict[str, float](), dict[str, float]()
        warm = queries(data, 0.5, 2)[0]
        known = ours() | COMPETITORS
        for name in names:
            try:
                started = time.perf_counter()
                call = known[name](data)
                self.build_seconds[name] = time.perf_counter() - started
                call(warm, 0.5)
            except (ImportError, NotImplementedError) as error:
                say(f"{name} is left out: {str(error).splitlines()[0]}")
                continue
            self.calls[name] = call

    def at(self, t: float, count: int, repeats: int, *, part: str, exact: bool = True) -> list[Row]:
        """A row for each implementation, at one t."""
        t = float(np.float32(t))
        x, n, d = queries(self.data, t, count)[0], *self.data.shape
        true = reference_velocity(self.data, x, t) if exact else None
        velocities = {}
        for name, call in self.calls.items():
            started = time.perf_counter()
            velocities[name] = call(x, t)
            self.first_seconds.setdefault(name, time.perf_counter() - started)
        matmuls = sgemms(self.data, x)
        taken: dict[str, list[float]] = {name: [] for name in [*self.calls, *(f"sgemm {name}" for name in matmuls)]}
        every = {name: bind(call, x, t) for name, call in self.calls.items()} | {f"sgemm {name}": f for name, f in matmuls.items()}
        for seed in range(repeats):  # in another order each time: a library's threads take a core for a while after its call
            for name in np.random.default_rng(seed).permutation(list(every)):
                taken[name].append(_seconds(every[name]))
        median = {name: float(np.median(seconds)) for name, seconds in taken.items()}
        sgemm = min(median[f"sgemm {name}"] for name in matmuls)
        pytorch = min((median[name] for name in PYTORCH if name in median), default=None)
        rows = [
            {
                "part": part,
                "n": n,
                "d": d,
                "queries": count,
                "t": t,
                "implementation": name,
                "seconds": median[name],
                "share_of_sgemm": sgemm / median[name],
                "times_pytorch": pytorch and pytorch / median[name],
                "velocity_error": None if true is None else _error(velocities[name], true),
                "build_seconds": self.build_seconds[name],
                "first_call_seconds": self.first_seconds[name],
            }
            for name in self.calls
        ]
        alone: Row = dict.fromkeys(COLUMNS)
        return [*rows, alone | {"part": part, "n": n, "d": d, "queries": count, "t": t, "implementation": "sgemm alone", "seconds": sgemm}]


def queries(data: np.ndarray, t: float, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`count` points of the path, x_t = t x_1 + (1 - t) x_0, x_1 drawn from the data; and those x_1's indices."""
    rng = np.random.default_rng(seed)
    index = rng.integers(len(data), size=count)
    noise = rng.standard_normal((count, data.shape[1]))
    return (t * data[index] + (1 - t) * noise).astype(np.float32), index


def synthetic(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Samples whose variance falls as 1/k along the k-th coordinate, as that of natural images and their latents does; 1 on average."""
    scale = np.sqrt(1 / np.arange(1, d + 1))
    rows = np.random.default_rng(seed).standard_normal((n, d), np.float32)
    rows *= (scale * np.sqrt(d / np.sum(scale**2))).astype(np.float32)
    return rows


def load(data: str, n: int, d: int) -> np.ndarray:
    """The data set of a name or a file, `[N, D]` float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that holds something else.
    """
    if data == "synthetic":
        return synthetic(n, d)
    file = FASHION_MNIST if data == "fashion_mnist" else Path(data).expanduser()
    if not file.is_file():
        hint = (
            "apt-get install dataset-fashion-mnist puts it there" if data == "fashion_mnist" else "give synthetic, fashion_mnist or a file"
        )
        raise FileNotFoundError(f"data={data}: {file} is not there; {hint}")
    if file.suffix == ".npy":
        values = np.load(file, allow_pickle=False)
    elif ".idx3-ubyte" in file.name.replace("-idx3", ".idx3"):
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            content = stream.read()
        values = np.frombuffer(content, np.uint8, offset=16).reshape(int.from_bytes(content[4:8], "big"), -1) / np.float32(127.5) - 1
    else:
        raise ValueError(f"data={data}: expected synthetic, fashion_mnist, a .npy file or an IDX file of images")
    if values.ndim < 2 or values.dtype.kind not in "uif":
        raise ValueError(f"data={data}: holds {values.dtype} of shape {values.shape}, expected real numbers [N, ...]")
    return np.ascontiguousarray(values.reshape(len(values), -1), np.float32)


def apart(module: str, what: str, argument: Any) -> Any:
    """What `python -m module argument` prints as its last line, in JSON: a measurement in a process of its own.

    Idle threads of one library spin and slow the next library by up to a factor of two. In a process of their own they end with it.

    Raises:
      ValueError: it failed; in its last words.
    """
    done = subprocess.run([sys.executable, "-m", module, json.dumps(argument)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{what} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """p of the power law seconds ~ sizes^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(names: Sequence[str], count: int, repeats: int, sizes: Sequence[Sequence[int]], say: Callable[[str], None]) -> list[Row]:
    """Synthetic data at t = 0.1 and 0.9: against N at the D in the middle of its list, and against D at the N in the middle of its."""
    of_n, of_d = sizes
    n, d = of_n[len(of_n) // 2], of_d[len(of_d) // 2]
    rows = []
    for part, shapes in (("growth with N", [(size, d) for size in of_n]), ("growth with D", [(n, size) for size in of_d])):
        for size in shapes:
            comparison = Comparison(synthetic(*size), names, lambda _: None)
            rows += [row for t in (0.1, 0.9) for row in comparison.at(t, count, repeats, part=part, exact=False)]
            say(f"{part}: N = {size[0]:,}, D = {size[1]:,}")
    return rows


def exponents(rows: Sequence[Row]) -> list[tuple[str, float, str, float]]:
    """Part, t, implementation and the fitted exponent."""
    groups: dict[tuple[str, float, str], list[Row]] = {}
    for row in rows:
        if row["part"].startswith("growth"):
            groups.setdefault((row["part"], row["t"], row["implementation"]), []).append(row)
    return [(*key, exponent([float(row[key[0][-1].lower()]) for row in of], [row["seconds"] for row in of])) for key, of in groups.items()]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, a line each."""
    shown: dict[str, tuple[str, Callable[[float], str]]] = {
        "seconds": ("ms", lambda v: f"{1e3 * v:.1f}"),
        "share_of_sgemm": ("of sgemm", lambda v: f"{v:.2f}"),
        "times_pytorch": ("x PyTorch", lambda v: f"{v:.2f}"),
        "velocity_error": ("error", lambda v: f"{v:.1e}"),
        "build_seconds": ("build s", lambda v: f"{v:.2f}"),
        "first_call_seconds": ("first s", lambda v: f"{v:.2f}"),
    }
    lines = [f"{'t':>6}  {'implementation':18}" + "".join(f"{head:>10}" for head, _ in shown.values())]
    for row in rows:
        values = ["" if row[key] is None else show(row[key]) for key, (_, show) in shown.items()]
        lines.append(f"{row['t']:>6.3g}  {row['implementation']:18}" + "".join(f"{value:>10}" for value in values))
    return "\n".join(lines)


def swept(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds of a whole sweep by implementation."""
    total: dict[str, float] = {}
    for row in rows:
        if row["part"] == "sweep":
            total[row["implementation"]] = total.get(row["implementation"], 0.0) + row["seconds"]
    return total


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write bench.csv with the rows so far."""
    with open(folder / "bench.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def figure(rows: Sequence[Row], title: str, folder: Path) -> None:
    """Draw time against t, and against N and D where that was measured."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    parts = [part for part in ("sweep", "growth with N", "growth with D") if any(row["part"] == part for row in rows)]
    parts = parts if "sweep" in parts else ["t", *parts]
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    color = {name: "black" if name == DEFAULT else "0.6" if name == "sgemm alone" else f"C{k}" for k, name in enumerate(names)}
    shown, axes = plt.subplots(1, len(parts), figsize=(1.6 + 4.6 * len(parts), 3.8), squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], parts, strict=True):
        key, times = (part[-1].lower(), (0.1, 0.9)) if part.startswith("growth") else ("t", (None,))
        for name in names:
            for style, t in zip(("-", "--"), times, strict=False):
                of = [r for r in rows if r["part"] == part and r["implementation"] == name and (t is None or abs(r["t"] - t) < 1e-6)]
                if of:
                    width = 2.2 if name == DEFAULT else 1.2
                    label = name if t in (None, 0.1) else None
                    axis.plot(
                        [r[key] for r in of], [1e3 * r["seconds"] for r in of], style, marker=".", color=color[name], lw=width, label=label
                    )
        axis.set_yscale("log")
        if key != "t":
            axis.set_xscale("log")
            axis.set_xticks(sorted({r[key] for r in rows if r["part"] == part}), minor=False)
            axis.xaxis.set_major_formatter("{x:,.0f}")
            axis.xaxis.set_minor_formatter("")
        axis.set_xlabel({"t": "t  (0: noise, 1: data)", "n": "samples N", "d": "numbers in a sample, D"}[key])
        axis.set_ylabel("ms for all queries")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        axis.set_title(title if key == "t" else f"{part}: t = 0.1, dashed 0.9", fontsize=10)
        axis.grid(alpha=0.25, which="both", lw=0.4)
        axis.spines[["top", "right"]].set_visible(False)
    shown.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    for suffix in ("png", "svg"):
        shown.savefig(folder / f"bench.{suffix}", dpi=150)
    plt.close(shown)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _error(velocity: np.ndarray, true: np.ndarray) -> float:
    """The error of the worst query, relative to its velocity."""
    return float((np.linalg.norm(velocity - true, axis=1) / np.linalg.norm(true, axis=1)).max())
