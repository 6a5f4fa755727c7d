"""`python -m experiments.memorization_by_timestep` as its user runs it."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.binary import Binary
from tests.experiments.trained_models import summary


@pytest.mark.slow
def test_a_model_that_learned_nothing_has_memorised_nothing(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    """Random weights: as far from the one oracle as from the other. Unseen data from a file do as well as those held out."""
    binary = binary_of("memorization_by_timestep")
    small = ("--config.num_queries=64", "--config.num_t=6", f"--config.model.path={run_folder}")
    done = binary(*small, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    found = summary(tmp_path / "run")
    assert found["n"] == pytest.approx(found["n_unseen"], rel=0.02)
    assert found["advantage"]["all t"]["low"] <= 0.05
    assert "nearer to the oracle of its training samples" in found["takeaway"]
    assert (tmp_path / "run" / "report.html").exists()
    assert len((tmp_path / "run" / "memorization.csv").read_text().splitlines()) == 7
    np.save(tmp_path / "unseen.npy", np.zeros((9, 3, 3, 1), np.float32))
    wrong = binary(*small, f"--workdir={tmp_path / 'other'}", "--config.data.source=digits", f"--config.heldout={tmp_path / 'unseen.npy'}")
    assert "unseen" in wrong.error
    alone = binary(*small, f"--workdir={tmp_path / 'third'}", f"--config.heldout={tmp_path / 'unseen.npy'}")
    assert "give the training data too" in alone.error
