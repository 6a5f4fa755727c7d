"""Memory of training steps on CPU, kept by the process from one step to the next."""

import ctypes

import jax

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> None:
    """Keep what a step frees for the next one. Call it in the main thread, before JAX's first computation.

    XLA:CPU takes the memory of all intermediate results when a step begins and frees it when the step ends: hundreds of megabytes, which
    malloc gives back to the system. The next step then pays for every page of them again, a fifth of its time and cold caches besides.
    glibc is told not to; this holds for blocks of the main thread alone, hence CPU programs are run there and not by another thread. What
    runs on accelerators is dispatched as before. On other C libraries: nothing.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
