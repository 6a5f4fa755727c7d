"""The kind of device that a model is compiled for, which is not always the one that this process has."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """ "cpu", "tpu" or "gpu": what `compiled_for` says, or what JAX computes on."""
    return _PLATFORM.get() or jax.default_backend()


@contextlib.contextmanager
def compiled_for(name: str) -> Iterator[None]:
    """Within, models are traced for such devices: ahead of time, for a TPU that is not there, too."""
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)
