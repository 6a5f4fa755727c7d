"""The binary as its user runs it: a real process, real files, and what stands in the folder afterwards."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from experiments import oracle_sweep
from experiments.configs import oracle_sweep as presets
from flowjax.reporting.workdir import open_workdir
from tests.binary import Binary, Place
from tests.experiments.in_process import summary_of

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs" / "oracle_sweep.py"


def swept(workdir: pathlib.Path, preset: str = "digits", **settings: Any) -> dict[str, Any]:
    """The experiment in this process, with few times and queries; its summary."""
    config = presets.get_config(preset)
    if preset != "gaussian_grid":
        config.update(num_t=12, num_queries=64)
    return summary_of(oracle_sweep, config, workdir, **settings)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("oracle_sweep", tmp_path_factory.mktemp("binary"))


@pytest.fixture(scope="module")
def digits_run(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    finished = binary(f"--workdir={workdir}", "--config.num_t=25", "--config.num_queries=128")
    assert finished.status == 0, finished.output
    assert str(workdir / "report.html") in finished.output
    return workdir


@pytest.mark.slow
def test_the_default_run_writes_all_that_is_promised(digits_run: pathlib.Path) -> None:
    names = {str(file.relative_to(digits_run)) for file in digits_run.rglob("*") if file.is_file()}
    figures = {f"figures/{name}.{kind}" for name in ("top1", "gap", "entropy", "strip") for kind in ("png", "svg")}
    assert {"config.json", "summary.json", "sweep.csv", "report.html"} | figures <= names


@pytest.mark.slow
def test_the_summary_holds_the_turning_point_and_what_follows(digits_run: pathlib.Path) -> None:
    summary = json.loads((digits_run / "summary.json").read_text())
    assert {"dataset", "n", "d", "num_classes", "implementation", "device", "wall_seconds", "seed", "versions", "command"} <= set(summary)
    assert (summary["dataset"], summary["n"], summary["d"]) == ("digits", 1797, 64)
    turning = summary["turning_point"]
    assert turning["ci_low"] < turning["measured"] < turning["ci_high"]
    # The digits' turning point, from an independent float64 computation: 0.533.
    assert turning["measured"] == pytest.approx(0.533, abs=0.02)
    assert turning["predicted"] == pytest.approx(turning["measured"], rel=0.08)
    low, high = summary["advice"]["guidance_interval"]
    assert low == turning["measured"] < high < 1
    assert summary["advice"]["shift"] > 0


@pytest.mark.slow
def test_the_table_has_a_row_for_each_t_with_intervals_about_the_means(digits_run: pathlib.Path) -> None:
    table = np.genfromtxt(digits_run / "sweep.csv", delimiter=",", names=True)
    assert len(table) == 25
    for name in ("top1_weight", "cfm_gap", "entropy", "effective_samples"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    # Navigation: all samples alike. Refinement: one of them.
    assert table["effective_samples"][0] > 1700
    assert table["effective_samples"][-1] == pytest.approx(1, abs=1e-3)
    # The Monte-Carlo gap and the posterior variance estimate one number.
    early = table["t"] < 0.5
    assert (np.abs(table["monte_carlo_gap"] - table["cfm_gap"])[early] < 0.15 * table["cfm_gap"][early]).all()


@pytest.mark.slow
def test_a_second_run_stops_and_loses_nothing_unless_told_to_overwrite(binary: Binary, digits_run: pathlib.Path) -> None:
    before = (digits_run / "summary.json").read_bytes()
    assert "--overwrite" in binary(f"--workdir={digits_run}").error
    assert (digits_run / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_resume_keeps_a_finished_run_of_the_same_configuration_only(binary: Binary, digits_run: pathlib.Path) -> None:
    same = binary(f"--workdir={digits_run}", "--config.num_t=25", "--config.num_queries=128", "--resume")
    assert same.status == 0
    assert "finished run" in same.output
    assert "another configuration" in binary(f"--workdir={digits_run}", "--resume").error


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_with_the_next_t(binary: Binary, digits_run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What was found is not computed again, and the table is that of an undisturbed run; another configuration is refused."""
    arguments = (f"--workdir={tmp_path / 'run'}", "--config.num_t=25", "--config.num_queries=128", "--config.explorer=True", "--resume")
    partial = tmp_path / "run" / "partial"
    binary.start(*arguments).kill_when(lambda: len(list(partial.glob("*.npz"))) >= 3)
    before = {file: file.stat().st_mtime_ns for file in partial.glob("*.npz")}
    damaged = sorted(before)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert "num_queries = 64" in binary(*arguments, "--config.num_queries=64").error
    finished = binary(*arguments)
    assert finished.status == 0, finished.output
    assert {file for file, since in before.items() if file.stat().st_mtime_ns != since} == {damaged}
    assert 'href="explore.html"' in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "explore.html").exists()
    assert (tmp_path / "run" / "sweep.csv").read_bytes() == (digits_run / "sweep.csv").read_bytes()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(binary: Binary, tmp_path: pathlib.Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Each holds its own shards alone: of mirror images too, of samples that are there twice, of those that are not held out; by class."""
    images, labels = (np.concatenate([part[:400], part[:30]]) for part in digits)
    np.savez(tmp_path / "mine.npz", images=np.round((images + 1) * 127.5).astype(np.uint8), labels=labels)
    settings = {"data.path": str(tmp_path / "mine.npz"), "data.flips": True, "query": "heldout", "num_t": 3, "num_queries": 24}
    alone = swept(tmp_path / "one", "arrays", **settings)
    assert (alone["num_classes"], alone["by_class"], alone["provenance"]["scaling"]) == (10, True, "x / 127.5 - 1")
    assert len((tmp_path / "one" / "classes.csv").read_text().splitlines()) == 11
    arguments = (f"--config={CONFIGS}:arrays", *(f"--config.{key}={value}" for key, value in settings.items()))
    with binary.job(2, *arguments, f"--workdir={tmp_path / 'two'}", place=Place(devices=2)) as job:
        ended = job.wait()
    assert [finished.status for finished in ended] == [0, 0], [finished.output for finished in ended]
    ours, theirs = (np.genfromtxt(tmp_path / name / "sweep.csv", delimiter=",", names=True) for name in ("two", "one"))
    for name in ours.dtype.names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    found = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (found["n"], found["provenance"]["duplicates"]) == (alone["n"], alone["provenance"]["duplicates"])
    assert found["turning_point"]["measured"] == pytest.approx(alone["turning_point"]["measured"], rel=1e-4)
    assert found["turning_point"]["predicted"] == pytest.approx(alone["turning_point"]["predicted"], rel=0.1)  # other queries


@pytest.mark.parametrize("query", [pytest.param("heldout", marks=pytest.mark.long), pytest.param("file", marks=pytest.mark.slow)])
def test_queries_may_come_from_held_out_samples_or_a_file(tmp_path: pathlib.Path, query: str) -> None:
    rng = np.random.default_rng(0)
    # The oracle sees 180 samples either way: one program for both.
    np.save(tmp_path / "data.npy", rng.standard_normal((200 if query == "heldout" else 180, 16)).astype(np.float32))
    np.save(tmp_path / "queries.npy", rng.standard_normal((30, 16)).astype(np.float32))
    asked = "heldout" if query == "heldout" else str(tmp_path / "queries.npy")
    summary = swept(tmp_path / "run", **{"data.path": str(tmp_path / "data.npy"), "query": asked})
    assert asked in summary["takeaway"]
    assert summary["n"] == 180


@pytest.mark.long
def test_a_turn_before_the_first_t_is_found_and_the_scale_is_named(tmp_path: pathlib.Path) -> None:
    """Data that were not scaled: the times that the grid lacks are kept with the others, and found there again, bit for bit."""
    rng = np.random.default_rng(0)
    # As many as in the test of held-out queries: one program for both.
    np.save(tmp_path / "grey.npy", (200 * rng.standard_normal((180, 16))).astype(np.float32))
    given = {"data.path": str(tmp_path / "grey.npy")}
    summary = swept(tmp_path / "run", **given)
    turning = summary["turning_point"]
    assert 0.002 < turning["ci_low"] < turning["measured"] < turning["ci_high"] < 0.006  # the grid begins at 0.01
    assert turning["predicted_low"] < turning["predicted"] < turning["predicted_high"]
    assert turning["predicted"] == pytest.approx(turning["measured"], rel=0.15)  # of 64 queries
    assert "scale the data to about 1" in summary["takeaway"]
    assert summary["verdict"] is None
    table = (tmp_path / "run" / "sweep.csv").read_bytes()
    files = sorted((tmp_path / "run" / "partial").glob("*.npz"), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == len(table.splitlines()) - 1 > 12
    kept = {file.name: file.read_bytes() for file in files}
    (tmp_path / "run" / "summary.json").unlink()
    for lost in (files[3], files[-2]):  # one of the grid, one of those that it lacked
        lost.unlink()
    files[-1].write_bytes(kept[files[0].name])  # another time's
    with open_workdir(tmp_path / "run", live=oracle_sweep.LIVE, resume=True) as opened:
        config = presets.get_config("digits")
        config.update_from_flattened_dict({"num_t": 12, "num_queries": 64, **given})
        oracle_sweep.run(config, opened)
    assert (tmp_path / "run" / "sweep.csv").read_bytes() == table
    assert {file.name for file in (tmp_path / "run" / "partial").glob("*.npz")} == set(kept)


@pytest.mark.slow
def test_data_that_never_turn_give_null_and_the_reason(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "same.npy", np.ones((20, 8), np.float32))
    turning = swept(tmp_path / "run", **{"data.path": str(tmp_path / "same.npy")})["turning_point"]
    assert turning["measured"] is None
    assert "already" in turning["reason"]


@pytest.mark.slow
def test_a_small_grid_finds_the_prediction_within_eight_per_cent(tmp_path: pathlib.Path) -> None:
    summary = swept(tmp_path / "run", "gaussian_grid", **{"grid.d": (16, 64), "grid.n": (64, 256), "num_queries": 128})
    cells = summary["cells"]
    assert [(cell["d"], cell["n"]) for cell in cells] == [(16, 64), (16, 256), (64, 64), (64, 256)]
    for cell in cells:
        assert abs(cell["predicted"] / cell["measured"] - 1) < 0.08
    assert (tmp_path / "run" / "figures" / "grid.png").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((f"--config={CONFIGS}:digts",), "'digits'"),
        (("--config=nowhere.py",), "nowhere.py"),
        (("--config.num_querys=3",), "config.num_queries"),
        (("--config.data.pth=x.npy",), "config.data.path"),
        (("--config.num_t=many",), "many"),
        (("--bogus",), "bogus"),
        (("stray",), "stray"),
        (("--config.path=straight",), "rectified_flow"),
        (("--config.t_max=1.0",), "t_max"),
        (("--config.num_queries=0",), "queries"),
        (("--config.seed=-1",), "from 0"),
        (("--config.data.path=/nowhere/x.npy",), "/nowhere/x.npy"),
        (("--config.data.path=gs://mine/x.npy",), "gs://mine/x.npy: data are read from files"),
        (("--config.data.labels=/nowhere/y.npy",), "config.data.path"),
        ((f"--config={CONFIGS}:arrays",), "config.data.path"),
        (("--config.query=/nowhere/q.npy",), "/nowhere/q.npy"),
        (("--workdir=/proc/nothing",), "/proc/nothing"),
        (("--workdir=/bucket/runs/a",), "no bucket is mounted at /bucket"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_line_that_names_it(
    binary: Binary, tmp_path: pathlib.Path, arguments: tuple[str, ...], named: str
) -> None:
    workdir = () if any(argument.startswith("--workdir") for argument in arguments) else (f"--workdir={tmp_path / 'run'}",)
    assert named in binary(*workdir, *arguments).error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", ["nan", "labels", "shape", "pickle"])
def test_bad_arrays_end_in_one_line_that_names_the_file(binary: Binary, tmp_path: pathlib.Path, bad: str) -> None:
    good = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    contents = {"nan": np.full_like(good, np.nan), "pickle": np.array([{"a": 1}], object)}
    np.save(tmp_path / "data.npy", contents.get(bad, good), allow_pickle=True)
    np.save(tmp_path / "other.npy", np.zeros(7, int) if bad == "labels" else np.ones((5, 3), np.float32))
    extra = {"labels": (f"--config.data.labels={tmp_path / 'other.npy'}",), "shape": (f"--config.query={tmp_path / 'other.npy'}",)}
    error = binary(f"--config.data.path={tmp_path / 'data.npy'}", f"--workdir={tmp_path / 'run'}", *extra.get(bad, ())).error
    assert "data" in error or "other" in error


def test_a_folder_with_other_files_is_left_alone(binary: Binary, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert str(tmp_path) in binary(f"--workdir={tmp_path}", "--overwrite").error
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
