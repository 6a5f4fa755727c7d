"""Threads that spread work over the cores of this process: for functions outside of XLA that release the GIL."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import LibController, ThreadpoolController

Result = TypeVar("Result")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_every_core(work: Callable[[int], Result]) -> list[Result]:
    """`work(k)` for k = 0, 1, ..., one for each core, at the same time; the last one on this thread."""
    jobs = [_pool().submit(work, core) for core in range(cores() - 1)]
    last = work(cores() - 1)
    return [*(job.result() for job in jobs), last]


def in_turn(n: int, work: Callable[[int], Result]) -> list[Result]:
    """`work(k)` for k below n. A core that is done takes the next k, because another library's threads may hold a core up."""
    if n <= 1:
        return [work(k) for k in range(n)]
    left, results = iter(range(n)), dict[int, Result]()

    def some(core: int) -> None:
        for k in left:
            results[k] = work(k)

    on_every_core(some)
    return [results[k] for k in range(n)]


def share(n: int, core: int) -> tuple[int, int]:
    """First and last of n things for one of the cores."""
    return n * core // cores(), n * (core + 1) // cores()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """A scope in which NumPy's matrix products take one core: more threads would spin when they are done, on cores that are needed next."""
    before = [library.num_threads for library in _blas()]
    try:
        for library in _blas():
            library.set_num_threads(1)
        yield
    finally:
        for library, threads in zip(_blas(), before, strict=True):
            library.set_num_threads(threads)


@functools.cache
def _blas() -> list[LibController]:
    """The libraries themselves: `ThreadpoolController.limit` asks each for all it knows, which takes longer than a small product."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="posterior")
