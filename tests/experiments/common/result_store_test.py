"""A cell of a sweep is computed once for all that it depends on."""

import pathlib

import numpy as np
import pytest

from experiments.common.result_store import CELLS, Cells
from flowjax.reporting.workdir import open_workdir


def test_a_cell_is_computed_once_for_all_that_it_depends_on(tmp_path: pathlib.Path) -> None:
    with open_workdir(tmp_path / "run", live=(CELLS,)) as workdir:
        cells = Cells(workdir)
        assert cells({"shift": 0.5, "edges": np.arange(3.0)}, lambda: {"found": np.float32(0.25)}) == {"found": 0.25}
        assert cells({"edges": (0.0, 1.0, 2.0), "shift": 0.5}, lambda: pytest.fail("it is there")) == {"found": 0.25}
        assert cells({"shift": 0.7, "edges": np.arange(3.0)}, lambda: 3) == 3
        with pytest.raises(ValueError, match="stopped"):
            cells({"shift": 1.0}, lambda: (_ for _ in ()).throw(ValueError("stopped")))
        files = sorted((tmp_path / "run" / CELLS).iterdir())
        assert len(files) == 2
        for file in files:
            file.write_text(file.read_text()[:-10])  # cut short
        assert Cells(workdir)({"shift": 0.7, "edges": np.arange(3.0)}, lambda: 4) == 4
