"""Packages that are installed only where they are asked for, and the line that says so where one is missing."""

EXTRAS = {
    "diffrax": "train",
    "flax": "train",
    "grain": "train",
    "optax": "train",
    "orbax": "train",
    "tensorboardX": "train",
    "array_record": "data",
    "huggingface_hub": "data",
    "importlib_resources": "data",
    "pyarrow": "data",
    "tensorflow_datasets": "data",
    "fsspec": "gcs",
    "gcsfs": "gcs",
    "google": "gcs",
    "torch": "torch",
    "torch_fidelity": "inception",
    "libtpu": "tpu",
}
"""The extra of setup.cfg that installs a module."""


def extra_of(error: ImportError) -> str | None:
    """The extra that installs the module that an import did not find; None if it is no module of an extra."""
    return EXTRAS.get((error.name or "").partition(".")[0])


def missing(what: str, error: ImportError, extra: str | None = None) -> ValueError:
    """The error to raise where a module is not installed: `WHAT needs MODULE: pip install 'flowjax-oracle[EXTRA]'`.

    Args:
      what: needs it.
      extra: the one that installs it, if it is not `extra_of(error)`.
    """
    extra = extra or extra_of(error)
    remedy = f": pip install 'flowjax-oracle[{extra}]'" if extra else f" ({error})"
    return ValueError(f"{what} needs {error.name or 'a package'}{remedy}")
