"""`python -m experiments.audit`: what it finds of planted copies, and what it refuses."""

import csv
import pathlib

import numpy as np
import pytest

from experiments import audit
from experiments.configs import audit as presets
from tests.experiments.in_process import summary_of


def audited(folder: pathlib.Path, **settings):
    return summary_of(audit, presets.get_config(), folder, **{"show": 8} | settings)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Colour images of a few random waves: 600 of training, 200 held out, 200 samples of which 20 are copies, 10 of them mirrored."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    waves = np.stack(np.meshgrid(np.arange(16), np.arange(16)), -1) @ rng.uniform(-0.6, 0.6, (2, 12))
    amplitude, phase = rng.standard_normal((1000, 12, 3)), rng.uniform(0, 6, (1000, 1, 1, 12))
    values = np.einsum("nijw,nwc->nijc", np.sin(waves + phase), amplitude)
    pixels = np.clip(127.5 + 20 * values, 0, 255).astype(np.uint8)
    samples = pixels[800:].copy()
    samples[:10], samples[10:20] = pixels[:10], np.flip(pixels[10:20], 2)
    np.savez(folder / "training.npz", images=pixels[:600], labels=np.arange(600) % 3)
    np.save(folder / "heldout.npy", pixels[600:800])
    np.save(folder / "samples.npy", samples)
    np.save(folder / "early.npy", pixels[700:])
    return folder


@pytest.mark.slow
def test_planted_copies_are_found_told_and_ranked(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    paths = {"data.path": str(images / "training.npz"), "heldout": str(images / "heldout.npy"), "num_baseline": 300}
    told = (f"{images}/samples.npy@200", f"{images}/early.npy@100")
    summary = audited(tmp_path / "run", samples=told, **paths)
    assert summary["copies"]["low"] <= 0.1 <= summary["copies"]["high"] < 0.2
    assert summary["mirrored"] == 10
    assert [row["steps"] for row in summary["checkpoints"]] == [100, 200]
    assert summary["checkpoints"][0]["low"] == 0
    assert "are copies of training samples" in summary["takeaway"]
    lines = (tmp_path / "run" / "copies.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(lines) if row["samples"] == told[0]]
    assert {int(row["sample"]) for row in rows[:20]} == set(range(20))
    assert all(row["nearest"] == row["sample"] for row in rows[:20])
    assert len(rows) == 200


def test_the_default_finds_what_it_plants(tmp_path: pathlib.Path) -> None:
    summary = audited(tmp_path / "run")
    assert summary["planted"] == 20
    assert summary["copies"]["low"] <= 0.05 <= summary["copies"]["high"]
    for name in ("copies.csv", "shares.csv", "report.html", "figures/nearest.png", "figures/ratios.svg"):
        assert (tmp_path / "run" / name).is_file()


def test_grey_samples_in_three_channels_are_those_of_grey_data(tmp_path: pathlib.Path) -> None:
    """As `experiments.sample` and others write them."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "training.npy", pixels[:40])
    np.savez(tmp_path / "samples.npz", arr_0=np.repeat(pixels[30:50], 3, axis=3))
    summary = audited(tmp_path / "run", samples=(str(tmp_path / "samples.npz"),), **{"data.path": str(tmp_path / "training.npy")})
    assert summary["below_a_third"]["value"] == 0.5


def test_a_plan_tells_time_and_memory_and_audits_nothing(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    paths = {"data.path": str(images / "training.npz"), "samples": (f"{images}/samples.npy",)}
    summary = audited(tmp_path / "run", plan=True, **paths)
    assert 0 < summary["seconds"] < 60
    assert summary["bytes"] > 200 * 16 * 16 * 3 * 4
    assert "800 samples, held-out and baseline ones included, against 600 x " in summary["takeaway"]
    assert not (tmp_path / "run" / "copies.csv").exists()


def test_features_given_as_arrays_take_the_place_of_values(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("training.npz", "samples.npy"):
        held = np.load(images / name)
        pixels = held["images"] if name.endswith("npz") else held
        np.save(images / f"{pathlib.Path(name).stem}_features.npy", pixels.mean((1, 2)).astype(np.float32))
    settings = {"data.path": str(images / "training.npz"), "samples": (f"{images}/samples.npy",), "features.kind": "arrays"}
    files = {"features.training": f"{images}/training_features.npy", "features.samples": (f"{images}/samples_features.npy",)}
    summary = audited(tmp_path / "run", **settings, **files)
    assert "training_features.npy" in summary["distances"]
    assert summary["baseline"] == "training"
    assert summary["flagged"]["value"] >= 0.05  # means of colour do not change in a mirror
    wrong = files | {"features.samples": (f"{images}/training_features.npy",)}
    with pytest.raises(ValueError, match="holds 600 rows, and there are 200 samples: expected one for each"):
        audited(tmp_path / "wrong", **settings, **wrong)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda x: x[:, :8], r"samples: .* of shape \(8, 16, 3\), the data \(16, 16, 3\): expected the same"),
        (lambda x: x.astype(np.float32), "bring them to the data's scale"),
        (lambda x: x / np.float32(255), "bring them to the data's scale"),
        (lambda x: x[:1], "one sample: expected at least two"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused_in_one_line(images: pathlib.Path, tmp_path: pathlib.Path, change, line: str) -> None:
    np.save(tmp_path / "samples.npy", change(np.load(images / "samples.npy")))
    with pytest.raises(ValueError, match=line) as refused:
        audited(tmp_path / "run", samples=(str(tmp_path / "samples.npy"),), **{"data.path": str(images / "training.npz")})
    assert "\n" not in str(refused.value)
