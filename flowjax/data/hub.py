"""A data set of Hugging Face's hub by its name, `hf://OWNER/NAME`: downloaded by huggingface_hub, and read as the folder that it then is.

What lies there is files: nothing in them is run, as in any other folder of data.
"""

import contextlib
import itertools
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from flowjax.data.recognize import ARRAY_SUFFIXES, TAR_SUFFIXES
from flowjax.data.sources.image_files import IMAGE_SUFFIXES
from flowjax.runtime import extras
from flowjax.runtime.messages import first_line

SCHEME = "hf://"
_NAME = re.compile(r"hf://(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_KINDS = ((".parquet",), TAR_SUFFIXES, IMAGE_SUFFIXES, ARRAY_SUFFIXES)
"""What is fetched: the files of the first of these kinds that there are."""
_CONVERTED = "refs/convert/parquet"
"""Where the hub keeps its own conversion of what was uploaded in another format."""
_BESIDE = ("dataset.json", "dataset_info.json", "dataset_dict.json", "state.json")


class Fetched(NamedTuple):
    """Where a data set lies on this machine, and of which commit it is: `OWNER/NAME@COMMIT`."""

    folder: pathlib.Path
    origin: str


def fetched(name: str) -> Fetched:
    """Download a data set, or what of it is not in the cache yet, and say where it lies.

    Args:
      name: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`. The Parquet files are fetched; without any the tars, images or arrays; and if
        there are none of these, the hub's own conversion to Parquet.

    Raises:
      ValueError: no such name or data set; huggingface_hub is not installed; the hub cannot be reached, and the cache does not have it.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"path={name}: expected {SCHEME}OWNER/NAME, or {SCHEME}OWNER/NAME@REVISION")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise extras.missing(f"path={name}", error, "hub") from error
    repo, revision = found[1], found[2]
    transport: Any = errors.HfHubHTTPError.__bases__[0]  # HTTPError of the client library, which differs by version
    logging.getLogger(transport.__module__.partition(".")[0]).setLevel(logging.WARNING)  # it would tell of every request
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it warns of is told below, in one line
    try:
        folder = _downloaded(huggingface_hub, repo, revision)
    except errors.GatedRepoError as error:
        raise ValueError(
            f"path={name}: its owner asks for consent; give it at huggingface.co/datasets/{repo}, then hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"path={name}: the hub has no such data set, or it is private (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"path={name}: the data set has no revision {revision or _CONVERTED}") from error
    except errors.HfHubHTTPError as error:
        raise ValueError(f"path={name}: not fetched: {first_line(error)}") from error
    except (transport, OSError) as error:
        kept = _kept(huggingface_hub, repo, revision, (transport, OSError))
        if kept is None:
            raise ValueError(
                f"path={name}: the hub cannot be reached, and the cache does not have it; where there is a network: "
                f"hf download --repo-type dataset {repo} --local-dir FOLDER, then --config.data.path=FOLDER"
            ) from error
        folder = kept
    return Fetched(folder, f"{repo}@{folder.name}")


def _downloaded(hub: Any, repo: str, revision: str | None) -> pathlib.Path:
    for one in _revisions(revision):
        listed = hub.HfApi().dataset_info(repo, revision=one).siblings  # asked once: what lists whole trees asks six times, for 23 seconds
        kind = _kind([file.rfilename for file in listed or ()])
        if kind:
            return pathlib.Path(hub.snapshot_download(repo, repo_type="dataset", revision=one, allow_patterns=_patterns(kind)))
    raise ValueError(f"path={SCHEME}{repo}: holds no Parquet files, tars, images or arrays")


def _kept(hub: Any, repo: str, revision: str | None, failures: tuple[type[BaseException], ...]) -> pathlib.Path | None:
    """What an earlier run has fetched."""
    for one, kind in itertools.product(_revisions(revision), _KINDS):
        with contextlib.suppress(*failures):
            found = hub.snapshot_download(repo, repo_type="dataset", revision=one, allow_patterns=_patterns(kind), local_files_only=True)
            folder = pathlib.Path(found)
            if _kind([file.name for file in folder.rglob("*")]) == kind:
                return folder
    return None


def _revisions(revision: str | None) -> tuple[str | None, ...]:
    return (revision,) if revision else (None, _CONVERTED)


def _patterns(kind: tuple[str, ...]) -> list[str]:
    return [*(f"*{suffix}" for suffix in kind), *_BESIDE]


def _kind(files: Sequence[str]) -> tuple[str, ...]:
    """The endings of the first kind of which there are files."""
    there = {pathlib.PurePosixPath(file).suffix.lower() for file in files}
    return next((kind for kind in _KINDS if there & set(kind)), ())
