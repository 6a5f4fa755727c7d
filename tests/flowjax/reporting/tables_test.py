"""Tables read back to the last digit, and escape what they show."""

import csv

import numpy as np

from flowjax.reporting import tables
from flowjax.reporting.templating import html_table


def test_csv_reads_back_to_the_last_digit(tmp_path):
    rows = [{"t": 0.1 + 0.2, "name": "a, b"}, {"t": np.float32(0.1), "more": None, "n": np.int64(7)}, {"name": "é\n", "t": float("nan")}]
    tables.write_csv(tmp_path / "x.csv", rows)
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["t", "name", "more", "n"]
    assert float(read[0]["t"]) == 0.1 + 0.2
    assert np.float32(read[1]["t"]) == np.float32(0.1)
    assert (read[1]["n"], read[1]["more"], read[2]["name"], read[2]["t"]) == ("7", "", "é\n", "nan")


def test_html_table_escapes_and_rounds():
    text = html_table([{"<a>": "x & <b>", "v": 0.123456, "n": 60000, "ok": True, "none": None}, {"v": float("nan")}])
    assert "&lt;a&gt;" in text
    assert "x &amp; &lt;b&gt;" in text
    assert all(part in text for part in ('"number">0.1235<', ">60,000<", ">yes<", ">–<", '<th scope="col" class="number">v<'))
