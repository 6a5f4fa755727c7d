"""The examples in the docstrings of the public API give what they say."""

import doctest
import importlib

import pytest

SHOWN = {
    "flowjax.oracle.oracle": {"Oracle", "Oracle.along_path"},
    "flowjax.stages": {"measure_turning_point", "advice"},
    "flowjax.analysis.turning_point": {"predict_turning_point", "predict_turning_point_from_data"},
    "flowjax.analysis.spectrum": {"covariance_spectrum"},
    "flowjax.schedules": {"shift", "uniform_timesteps"},
    "flowjax.conventions": {"told"},
    "flowjax.data": {"load"},
    "flowjax.fields.external": {"external_field"},
    "kernels.posterior.api": {"posterior"},
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_of_a_module_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    assert {test.name.removeprefix(f"{name}.") for test in found} == SHOWN[name]
    runner = doctest.DocTestRunner(verbose=False)
    told: list[str] = []
    for test in found:
        runner.run(test, out=told.append)
    assert not runner.failures, "".join(told)
