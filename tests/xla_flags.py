"""XLA's flags in the tests, and in the processes that they start. Imports no JAX: it reads them when it is imported."""

import importlib.metadata
import os

OLDER_EMITTERS = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
"""Whether XLA still has its older emitters of fusions; it ends a process over a flag that it does not know."""


def xla_flags(devices: int) -> str:
    """So many CPU devices, and XLA's older emitters of fusions where it has them.

    These compile an oracle's program in 4 s instead of 10. `oracle/compiled_exact_test.py` takes the newer ones, which users have.
    """
    older = "--xla_cpu_use_fusion_emitters=false " if OLDER_EMITTERS else ""
    return f"{older}--xla_force_host_platform_device_count={devices}"


def without_flags(**added: str) -> dict[str, str]:
    """The environment of a process that compiles as a user's does: for a TPU, whose compiler ends the process over flags of a CPU's."""
    ours = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    return {key: value for key, value in os.environ.items() if key not in ours} | added
