"""Google Cloud Storage, by its own client. Errors are reported in one line, and within a minute.

Credentials are those that the client finds: of the host on Google Cloud, elsewhere of `gcloud auth application-default login` or
GOOGLE_APPLICATION_CREDENTIALS. STORAGE_EMULATOR_HOST (and for checkpoints TENSORSTORE_GCS_HTTP_URL) name an emulator, which asks for none.
"""

import contextlib
import errno
import functools
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from flowjax.runtime import extras

EMULATOR = "STORAGE_EMULATOR_HOST"
TIMEOUT = 20.0
"""Seconds for one request."""
PATIENCE = 120.0
"""Seconds for all attempts at one, in a run."""
AT_THE_START = 15.0
"""Seconds for all attempts to reach a bucket before a run begins."""


def ready() -> None:
    """See that buckets can be read and written here, by everything that does.

    Raises:
      ValueError: the extra `gcs` is not installed.
    """
    # Read when gcsfs is imported: without it gcsfs asks for each bucket's kind by gRPC, for minutes where that does not get through.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec
        import gcsfs  # noqa: F401  etils.epath reads by it
        from google.cloud import storage  # noqa: F401
    except ImportError as error:
        raise extras.missing("gs://", error, "gcs") from error
    for name in ("gcsfs", "fsspec.caching", "urllib3.connectionpool", "google.auth"):  # what matters is raised, and said in one line
        logging.getLogger(name).setLevel(logging.ERROR)
    # Others write to the bucket too, TensorStore and other hosts among them: what was listed before says nothing.
    ours = {"use_listings_cache": False} | ({"token": "anon"} if os.environ.get(EMULATOR) else {})
    for name in ("gs", "gcs"):
        fsspec.config.conf.setdefault(name, {}).update(ours)


def check(path: str) -> None:
    """See that a bucket is there, and that these credentials may list it.

    Raises:
      ValueError: it is not, or they may not, or there are none.
      OSError: it cannot be reached.
    """
    bucket, key = _split(path)
    with _told(path):
        for _ in client().list_blobs(bucket, prefix=key, max_results=1, timeout=AT_THE_START, retry=_retry(AT_THE_START)):
            pass


def blob(path: str) -> Any:
    """A handle of an object; a new one each time, for one that has been used asks for the generation that it knows."""
    bucket, key = _split(path)
    return client().bucket(bucket).blob(key)


def upload(local: pathlib.Path, path: str) -> None:
    """Write an object from a file. The bucket compares checksums."""
    with _told(path):
        blob(path).upload_from_filename(str(local), timeout=TIMEOUT * 3, retry=_retry(), checksum="crc32c")


def download(path: str, local: pathlib.Path) -> None:
    """Read an object into a file."""
    with _told(path):
        try:
            blob(path).download_to_filename(str(local), timeout=TIMEOUT * 3, retry=_retry())
        except _errors().NotFound as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from error


def move(path: str, to: str) -> None:
    """Move all objects below a name: each is copied by the bucket, then removed."""
    bucket, key = _split(path)
    where = client().bucket(bucket)
    with _told(path):
        found = list(client().list_blobs(bucket, prefix=f"{key}/", timeout=TIMEOUT, retry=_retry()))
        for each in found:
            where.copy_blob(each, where, f"{_split(to)[1]}{each.name.removeprefix(key)}", timeout=TIMEOUT * 3, retry=_retry())
        for each in found:
            each.delete(timeout=TIMEOUT, retry=_retry())


def remove(path: str) -> None:
    """Remove an object, and all objects below."""
    bucket, key = _split(path)
    with _told(path):
        found = list(client().list_blobs(bucket, prefix=f"{key}/", timeout=TIMEOUT, retry=_retry()))
        for each in [*found, blob(path)]:
            with contextlib.suppress(_errors().NotFound):
                each.delete(timeout=TIMEOUT, retry=_retry())


def checksums(path: str) -> dict[str, str]:
    """CRC32C of each object below, as the bucket keeps it, by its name from there."""
    bucket, key = _split(path)
    with _told(path):
        found = client().list_blobs(bucket, prefix=f"{key}/", timeout=TIMEOUT, retry=_retry())
        return {each.name.removeprefix(f"{key}/"): each.crc32c for each in found if not each.name.endswith("/")}


@functools.cache
def client() -> Any:
    """The client, made once."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get(EMULATOR):
        return storage.Client(credentials=AnonymousCredentials(), project="none")
    return storage.Client(project=None)


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("gs://").partition("/")
    return bucket, key.strip("/")


def _errors() -> Any:
    from google.api_core import exceptions

    return exceptions


def _retry(seconds: float = PATIENCE) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(seconds)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors of the client as those of files: in one line, and with the remedy."""
    import google.auth.exceptions
    import requests

    errors, bucket = _errors(), f"gs://{_split(path)[0]}"
    try:
        yield
    except errors.NotFound as error:
        raise ValueError(f"{path}: there is no bucket {bucket}, or it is not yours to see: is its name right?") from error
    except (errors.Forbidden, errors.Unauthorized) as error:
        raise ValueError(f"{path}: these credentials may not read and write in {bucket} ({_words(error)})") from error
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise ValueError(
            f"{path}: there are no credentials for {bucket}: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS=FILE"
        ) from error
    except google.auth.exceptions.RefreshError as error:
        raise ValueError(f"{path}: the credentials for {bucket} are not taken ({_words(error)})") from error
    except (errors.GoogleAPIError, google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
        why = getattr(error, "cause", None) or error  # of the last attempt
        raise OSError(errno.EIO, f"{bucket} cannot be reached ({type(why).__name__})", path) from error


def _words(error: BaseException) -> str:
    text = str(getattr(error, "message", "") or error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


class Refused(Exception):
    """An object is not in the state that was asked for."""


def read(path: str) -> tuple[int, str] | None:
    """The generation and the text of an object; None if it is not there."""
    of = blob(path)
    with _told(path):
        try:
            text = of.download_as_bytes(timeout=TIMEOUT, retry=_retry()).decode(errors="replace")
        except _errors().NotFound:
            return None
        return int(of.generation), text


def write_if(path: str, text: str, generation: int) -> int:
    """Write an object if it is of this generation, 0 if it is not there; returns the new one.

    Raises:
      Refused: it is of another.
    """
    of = blob(path)
    with _told(path):
        try:
            of.upload_from_string(text, if_generation_match=generation, timeout=TIMEOUT, retry=_retry())
        except _errors().PreconditionFailed as error:
            raise Refused from error
        return int(of.generation)


def remove_if(path: str, generation: int) -> None:
    """Remove an object if it is of this generation; nothing otherwise."""
    with _told(path), contextlib.suppress(_errors().NotFound, _errors().PreconditionFailed):
        blob(path).delete(if_generation_match=generation, timeout=TIMEOUT, retry=_retry())
