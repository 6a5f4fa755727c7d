"""`load` and `open_records`: sources by name."""

import pytest

from flowjax import data


def test_unknown_sources_and_settings_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ValueError, match="did you mean 'path'"):
        data.load("arrays", paht="x.npy")
    with pytest.raises(ValueError, match="needs n, d"):
        data.load("gaussian")
    with pytest.raises(ValueError, match="needs path"):
        data.load("arrays", path="")
