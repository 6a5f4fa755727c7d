"""Benchmark of every implementation beside NumPy, PyTorch, tokamax and KeOps: one run, the same arrays and threads for all.

    python -m kernels.bench                                          # synthetic data, a minute; extra `bench` for PyTorch and tokamax
    python -m kernels.bench --data=fashion_mnist --sweep=50          # apt-get install dataset-fashion-mnist
    python -m kernels.bench --data=latents.npy --t=0.1,0.5,0.9 --growth
    python -m kernels.bench --workloads=all                          # workloads of typical users beside PyTorch, each in its own process
    python -m kernels.bench --paths=50 --queries=256 --data=fashion_mnist    # whole paths: all times at once beside a pass for each
    python -m kernels.bench --patches=9 --queries=8 --t=0.3 --data=fashion_mnist    # every patch against every patch of the data
    python -m kernels.bench --gpu=all                                # on a GPU: its implementations beside PyTorch, TF32 off and on

Every implementation here, NumPy, PyTorch's dense softmax and attention, tokamax and KeOps compute the velocity of rectified flow for
queries from the path. Repeats are interleaved, so that a busy machine slows all alike. Medians count; the first call is timed apart.
The share is of the machine's sgemm rate: the fastest library's time for the two matmuls of a pass, measured in the same turns. Writes
bench.csv, bench.png and bench.svg to --workdir.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from kernels.benchmark import calls, gpu, patches, paths
from kernels.benchmark.competitors import COMPETITORS, DEFAULT, PYTORCH, ours
from kernels.benchmark.runner import Comparison, exponents, figure, growth, load, swept, table, write
from kernels.benchmark.workloads import SAME_IN_WORKLOAD, SMALL, TABLE, WORKLOADS, compare


def pin(threads: int) -> None:
    """Restart this process on `threads` cores, unless it has no more: a library counts the cores once, when it is loaded."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise ValueError(f"threads={threads}: expected 1 to {len(cores)}, the cores of this process")
    if len(cores) == threads:
        return
    os.sched_setaffinity(0, cores[:threads])
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.execve(sys.executable, [sys.executable, "-m", "kernels.bench", *sys.argv[1:]], os.environ | dict.fromkeys(names, str(threads)))


_DATA = flags.DEFINE_string("data", "synthetic", "synthetic, fashion_mnist, or a file: .npy [N, ...], or IDX images")
_N = flags.DEFINE_integer("n", 20_000, "samples of synthetic data")
_D = flags.DEFINE_integer("d", 784, "numbers in a sample of synthetic data")
_T = flags.DEFINE_list("t", ["0.1", "0.2", "0.35", "0.5", "0.7", "0.9"], "times, in (0, 1)")
_QUERIES = flags.DEFINE_integer("queries", 128, "queries in a call")
_REPEATS = flags.DEFINE_integer("repeats", 7, "interleaved calls, of which the median counts")
_THREADS = flags.DEFINE_integer("threads", 0, "cores to run on; 0: all of this process")
_ONLY = flags.DEFINE_list("only", [], "names to compare, such as default,NumPy; empty: all")
_SWEEP = flags.DEFINE_integer("sweep", 0, "also sum over so many evenly spaced t in [0.01, 0.99]")
_GROWTH = flags.DEFINE_bool("growth", False, "also time synthetic data against N and D, and fit exponents")
_GROWTH_N = flags.DEFINE_list("growth_n", ["1000", "4000", "16000", "60000"], "sizes for --growth")
_GROWTH_D = flags.DEFINE_list("growth_d", ["64", "256", "784", "3072"], "sizes for --growth")
_WORKLOADS = flags.DEFINE_enum("workloads", None, ["all", "small"], "measure workloads of typical users beside PyTorch instead")
_PATHS = flags.DEFINE_integer("paths", 0, "measure whole paths of --queries pairs at so many times beside PyTorch instead")
_CALLS = flags.DEFINE_list("calls", [], "measure so many first calls, such as 1,3,10,30,100, with and without an index instead")
_PATCHES = flags.DEFINE_integer("patches", 0, "measure patch posteriors, of this side, at the first of --t, beside PyTorch instead")
_COMPARED = flags.DEFINE_integer("compared", 600, "images that others than flowjax are measured on with --patches; their cost is linear")
_GPU = flags.DEFINE_enum("gpu", None, ["all", "small"], "measure implementations for GPUs beside PyTorch instead; small: also on a CPU")
_WORKDIR = flags.DEFINE_string("workdir", "runs/bench", "folder of bench.csv and the figure, which are replaced")


def main(argv: Sequence[str]) -> None:
    """Print the tables; one line and status 2 for what a user can cause."""
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}")
        run(Path(_WORKDIR.value).expanduser())
    except (ValueError, OSError) as error:
        print(f"kernels.bench: {str(error).strip().splitlines()[0][:400]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("kernels.bench: interrupted; bench.csv has what was measured", file=sys.stderr)
        sys.exit(130)


def run_workloads(folder: Path) -> None:
    """Measure the workloads, print a line each, and write workloads.json."""
    folder.mkdir(parents=True, exist_ok=True)
    file, rows = folder / "workloads.json", dict[str, Any]()
    about = {
        "command": f"python -m kernels.bench --workloads={_WORKLOADS.value} --repeats={_REPEATS.value}",
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu(),
        "columns": TABLE,
        "same_in_group": SAME_IN_WORKLOAD,
    }
    for row in compare(WORKLOADS if _WORKLOADS.value == "all" else SMALL, max(1, _REPEATS.value // 3), print):
        rows[f"{row['workload']}, t = {row['t']}"] = row
        print(
            f"{row['workload']:36} t = {row['t']:<5} {row['ours_ms']:8.2f} ms  PyTorch {row['pytorch_ms']:8.2f} ms  "
            f"{row['ratio']:.2f} x  error {row['velocity_error']:.1e}",
            flush=True,
        )
        file.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    print(f"\nTable: {file.resolve()}")


def cpu() -> str:
    """The model of this machine's CPU, as Linux names it; else the architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_paths(folder: Path) -> None:
    """Measure whole paths, print a line for each way, and write paths.json."""
    for name, value, least in (("paths", _PATHS.value, 2), ("queries", _QUERIES.value, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
    data = load(_DATA.value, _N.value, _D.value)
    rows = {row["way"]: row for row in paths.compare(data, _QUERIES.value, _PATHS.value, max(1, _REPEATS.value // 3))}
    for way, row in rows.items():
        print(f"{way:24} {row['seconds']:8.2f} s   {row['of_logits']:5.1f} x   {row['of_pass']:5.1f} x   error {row['error']:.1e}")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "paths.json"
    file.write_text(
        json.dumps({"cores": len(os.sched_getaffinity(0)), "cpu": cpu(), "columns": paths.TABLE, "rows": rows}, indent=1) + "\n"
    )
    print(f"\nTable: {file.resolve()}")


def run_calls(folder: Path) -> None:
    """Measure first calls on a fresh oracle, print a line for each number of them, and write calls.json."""
    counts = sorted(int(_number(text, "calls")) for text in _CALLS.value)
    if counts[0] < 1:
        raise ValueError(f"calls={counts[0]}: expected at least 1")
    rows = list(calls.compare(load(_DATA.value, _N.value, _D.value), _QUERIES.value, counts, max(1, _REPEATS.value // 3)))
    for row in rows:
        ways = "  ".join(f"{way} {row[way]:8.2f} s" for way in calls.WAYS)
        print(f"{row['calls']:5} calls  {ways}  {row['ratio']:.2f} x the better of the last two")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "calls.json"
    file.write_text(json.dumps({"cores": len(os.sched_getaffinity(0)), "cpu": cpu(), "rows": rows}, indent=1) + "\n")
    print(f"\nTable: {file.resolve()}")


def run_patches(folder: Path) -> None:
    """Measure posteriors over patches, print a line for each way, and write patches.json."""
    size, t = _PATCHES.value, _number(_T.value[0], "t")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"patches={size}: expected an odd number of pixels, so that a patch has a centre")
    for name, value in (("queries", _QUERIES.value), ("compared", _COMPARED.value)):
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if not 0 < t < 1:
        raise ValueError(f"t={_T.value[0]}: expected a time between 0 and 1, neither included")
    folder.mkdir(parents=True, exist_ok=True)
    file, rows = folder / "patches.json", list[dict[str, Any]]()
    about = {
        "command": f"python -m kernels.bench --patches={size} --queries={_QUERIES.value} --t={t} --data={_DATA.value}",
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu(),
        "columns": patches.TABLE,
    }
    for row in patches.compare(load(_DATA.value, _N.value, _D.value), _QUERIES.value, size, t, _COMPARED.value):
        rows.append(row)
        print("   ".join(f"{header} {form.format(**row)}" for header, form in patches.TABLE.items()), flush=True)
        file.write_text(json.dumps(about | {"rows": {f"{one['way']}, {one['images']}": one for one in rows}}, indent=1) + "\n")
    print(f"\nTable: {file.resolve()}")


def run_gpu(folder: Path) -> None:
    """Measure what runs on a GPU, print a line for each, and write gpu.json."""
    if _GPU.value == "all" and jax.default_backend() != "gpu":
        raise ValueError(f"gpu=all: JAX sees no GPU here, but {jax.default_backend()}; --gpu=small tries the command on it")
    folder.mkdir(parents=True, exist_ok=True)
    file, rows = folder / "gpu.json", dict[str, Any]()
    for row in gpu.compare(gpu.SIZES if _GPU.value == "all" else gpu.SMALL, print):
        rows[f"{row['n']} x {row['d']}, t = {row['t']}, {row['way']}"] = row
        size = f"{row['n']:>9,} x {row['d']:<5} {row['dtype']:8} t = {row['t']:<5}"
        print(f"{size} {row['way']:22} {row['ms']:9.2f} ms  {row['ratio']:6.2f} x  error {row['velocity_error']:.0e}", flush=True)
        file.write_text(json.dumps({"columns": gpu.TABLE, "rows": rows}, indent=1) + "\n")
    print(f"\nTable: {file.resolve()}")


def run(folder: Path) -> None:
    """Measure everything that the flags ask for."""
    others = ((_WORKLOADS, run_workloads), (_PATHS, run_paths), (_CALLS, run_calls), (_PATCHES, run_patches), (_GPU, run_gpu))
    for flag, other in others:
        if flag.value:
            other(folder)
            return
    times = [_number(t, "t") for t in _T.value]
    for name, value in (("n", _N.value), ("d", _D.value), ("queries", _QUERIES.value), ("repeats", _REPEATS.value)):
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if not all(0 < t < 1 for t in times):
        raise ValueError(f"t={','.join(_T.value)}: expected times between 0 and 1, neither included")
    sizes = [[int(_number(v, "growth")) for v in flag.value] for flag in (_GROWTH_N, _GROWTH_D)]
    pin(_THREADS.value or len(os.sched_getaffinity(0)))
    known = [*ours(), *COMPETITORS]
    names = _ONLY.value or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"only={unknown[0]}: expected some of {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    data = load(_DATA.value, _N.value, _D.value)
    load_average = Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else "unknown"
    title = f"{_DATA.value}, {data.shape[0]:,} x {data.shape[1]:,}, {_QUERIES.value} queries"
    print(f"{title}, {len(os.sched_getaffinity(0))} cores, load average {load_average}; medians of {_REPEATS.value}, interleaved")
    comparison = Comparison(data, names, print)
    rows = []
    for t in times:
        rows += comparison.at(t, _QUERIES.value, _REPEATS.value, part="t")
        write(rows, folder)
        print(table(rows[-len(comparison.calls) - 1 :]), flush=True)
    for t in np.linspace(0.01, 0.99, _SWEEP.value) if _SWEEP.value else ():
        rows += comparison.at(t, _QUERIES.value, 1, part="sweep", exact=False)
    if _SWEEP.value:
        print(f"\nA sweep of {_SWEEP.value} t in [0.01, 0.99], seconds:")
        print("\n".join(f"  {name:18} {seconds:.2f}" for name, seconds in swept(rows).items()), flush=True)
    if _GROWTH.value:
        grown = [name for name in names if name in (DEFAULT, *PYTORCH)]
        rows += growth(grown, _QUERIES.value, _REPEATS.value, sizes, print)
        print("\n".join(f"  {part}, t = {t:.1f}, {name:18} exponent {p:.2f}" for part, t, name, p in exponents(rows)))
    write(rows, folder)
    figure(rows, title, folder)
    print(f"\nTable and figure: {folder.resolve()}")


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{flag}={text}: expected a number") from None


if __name__ == "__main__":
    app.run(main)
