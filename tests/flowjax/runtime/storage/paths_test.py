"""Addresses of folders and buckets."""

import pathlib
import sys

import pytest

from flowjax.runtime import storage


def test_addresses_are_told_apart() -> None:
    assert storage.located("~/runs") == pathlib.Path("~/runs").expanduser()
    for wrong in ("s3://mine/run", "gs://mine", "gs://mine/", "gs:///run"):
        with pytest.raises(ValueError, match="expected"):
            storage.located(wrong)


def test_where_the_extra_is_not_installed_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs:// needs gcsfs: pip install 'flowjax-oracle\[gcs\]'"):
        storage.located("gs://mine/run")
