"""`import flowjax`: the public names, each imported when it is first used."""

import subprocess
import sys

import pytest

import flowjax


@pytest.mark.parametrize("name", flowjax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(flowjax, name) is not None
    assert name in dir(flowjax)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"has no attribute 'Orakel'; it has .*Oracle"):
        _ = flowjax.Orakel


def test_importing_flowjax_alone_loads_no_library():
    """The names are lazy, and the version is that of the distribution."""
    code = "import sys, flowjax; print(flowjax.__version__, 'jax' in sys.modules, 'flowjax.oracle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [flowjax.__version__, "False", "False"]
