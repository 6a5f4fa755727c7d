"""Finished results of a run: each is computed once, and what is damaged, of another run or of an earlier build is never taken for one."""

import json
import pathlib

import numpy as np
import pytest

from flowjax.runtime.result_store import Damaged, ResultStore

ARRAYS = {"x": np.float32([[0.1, np.nan, np.inf]]), "n": np.arange(3)}


def results(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.iterdir() if file.name != "store.json")


def test_a_result_is_computed_once_for_all_that_it_depends_on(tmp_path):
    store = ResultStore(tmp_path / "cells")
    assert store({"shift": 0.5, "edges": np.arange(3.0)}, lambda: {"found": np.float32(0.25)}) == {"found": 0.25}
    assert store({"edges": (0.0, 1.0, 2.0), "shift": 0.5}, lambda: pytest.fail("it is there")) == {"found": 0.25}
    assert store({"shift": 0.7, "edges": np.arange(3.0)}, lambda: 3) == 3
    with pytest.raises(ValueError, match="stopped"):
        store({"shift": 1.0}, lambda: (_ for _ in ()).throw(ValueError("stopped")))
    assert len(results(tmp_path / "cells")) == 2
    for file in results(tmp_path / "cells"):
        file.write_text(file.read_text()[:-10])  # cut short
    assert ResultStore(tmp_path / "cells")({"shift": 0.7, "edges": np.arange(3.0)}, lambda: 4) == 4


def test_arrays_come_back_bit_for_bit_and_a_result_in_anothers_place_is_seen(tmp_path):
    store = ResultStore(tmp_path / "partial", of={"seed": 0}, arrays=True)
    kept = store.keep({"t": 0.1}, ARRAYS)
    again = ResultStore(tmp_path / "partial", of={"seed": 0}, arrays=True).read({"t": 0.1})
    for found in (kept, again):
        assert {name: (part.dtype, part.tobytes()) for name, part in found.items()} == {
            name: (part.dtype, part.tobytes()) for name, part in ARRAYS.items()
        }
    assert store.find({"t": 0.2}) is None
    (first,) = results(tmp_path / "partial")
    store.keep({"t": 0.2}, ARRAYS)
    (second,) = set(results(tmp_path / "partial")) - {first}
    second.write_bytes(first.read_bytes())
    assert store.find({"t": 0.2}) is None
    with pytest.raises(Damaged, match=r"holds the result of \{'t': 0.1\}"):
        store.read({"t": 0.2})


def test_no_flipped_bit_is_taken_for_a_result_of_arrays(tmp_path):
    store = ResultStore(tmp_path, arrays=True)
    store.keep({"t": 0.1}, {"x": ARRAYS["x"]})
    (file,) = results(tmp_path)
    whole = file.read_bytes()
    refused = 0
    for k in range(0, len(whole), 3):
        file.write_bytes(whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :])
        found = store.find({"t": 0.1})
        refused += found is None
        assert found is None or found["x"].tobytes() == ARRAYS["x"].tobytes()  # it was in a date, say
    assert refused > len(whole) / 6


def test_results_of_another_configuration_are_refused(tmp_path):
    ResultStore(tmp_path, of={"config": {"seed": 0}}).keep({"t": 0.1}, 1)
    with pytest.raises(ValueError, match=r"config\.seed = 1, but .* holds results of another configuration, with 0: resume with the same"):
        ResultStore(tmp_path, of={"config": {"seed": 1}})
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(ValueError, match=r"store\.json is damaged, .* pass --overwrite"):
        ResultStore(tmp_path, of={"config": {"seed": 0}})


@pytest.mark.parametrize("earlier", ["another version", "before there was a version"])
def test_results_of_an_earlier_build_are_computed_anew_and_that_is_said(tmp_path, capsys, earlier):
    store = ResultStore(tmp_path / "cells")
    for shift in (0.5, 0.7):
        store.keep({"shift": shift}, 1)
    about = tmp_path / "cells" / "store.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"build": "0.0.1, format 1"}))
    if earlier == "before there was a version":
        about.unlink()
    store = ResultStore(tmp_path / "cells")
    assert capsys.readouterr().err == f"{tmp_path / 'cells'}: 2 results of an earlier build are computed anew\n"
    assert store({"shift": 0.5}, lambda: 2) == 2
    assert ResultStore(tmp_path / "cells").find({"shift": 0.5}) == 2
    assert len(results(tmp_path / "cells")) == 1
    assert not capsys.readouterr().err
