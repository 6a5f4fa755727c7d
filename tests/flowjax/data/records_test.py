"""Records: samples that are read when they are asked for, and their labels."""

import numpy as np
import pytest

from flowjax import data


def test_labels_far_apart_cost_what_their_number_does():
    records = data.Records("mine", np.arange(12.0).reshape(4, 3), np.array([0, 2**31 - 2, 0, 1]))
    assert (records.num_classes, data.Records("mine", records.rows, np.array([0, 999, 7, 1])).num_embedded()) == (2**31 - 1, 1000)
    with pytest.raises(ValueError, match=r"labels reach 2,147,483,646, and 3 occur; .*number the classes from 0"):
        records.num_embedded()
    assert data.Records("mine", records.rows).num_embedded() == 0
