# ruff: noqa: E402
"""Settings of every test: eight CPU devices, strict dtype promotion, and shapes that are checked where they are annotated."""

import gc
import os
import pathlib

from tests.xla_flags import xla_flags

# Programs that were compiled before, by this run or an earlier one, by a test or a binary that it starts, are not compiled again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Before JAX is imported: eight CPU devices for what is sharded, and no accelerator, whose rounding differs.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
# Processes that tests start leave out LLVM's optimisations, as most tests do themselves.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jaxtyping

# Before the packages are imported: every annotated function is checked at each call (under jit: when it is traced).
jaxtyping.install_import_hook(["flowjax", "kernels", "experiments"], f"{__name__}.checked")

from collections.abc import Callable
from typing import Any

import beartype
import hypothesis
import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=20, print_blob=True)
hypothesis.settings.load_profile("ci")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The type checker of the import hook: beartype, but not for `__init__`.

    JAX rebuilds the dataclasses that are pytrees with whatever it has for leaves: stacked arrays in a scan, `True`, an axis, a
    sharding. Their annotations describe the real thing.
    """
    return function if function.__name__ == "__init__" else beartype.beartype(function)


EXACT = (
    "tests/kernels/posterior/partial_test",
    "tests/kernels/posterior/reference_test",
    "tests/kernels/posterior/xla/streaming_test",
    "tests/flowjax/oracle/compiled_exact_",
)
"""Where numbers are held to rounding in programs that LLVM optimises, as it does for users."""


@pytest.fixture(autouse=True, scope="module")
def _compiled_fast_where_nothing_is_exact(request: pytest.FixtureRequest) -> None:
    """Elsewhere LLVM's optimisations are left out: most tests compile far longer than they compute."""
    left_out = not request.node.nodeid.startswith(EXACT)
    if jax.config.read("jax_disable_most_optimizations") != left_out:
        jax.config.update("jax_disable_most_optimizations", left_out)
        jax.clear_caches()


LONGEST_FIRST = (
    "tests/experiments/",
    "tests/launch/",
    "tests/flowjax/training/",
    "tests/kernels/",
    "tests/flowjax/oracle/",
    "tests/flowjax/sampling",
    "tests/flowjax/stages",
    "tests/flowjax/fields/",
    "tests/docs/",
)
"""So that at the end no worker waits for a long file of the other's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, folder in enumerate(LONGEST_FIRST) if item.nodeid.startswith(folder)), len(LONGEST_FIRST)))


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not visit it again, which takes it a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 digits, `[1797, 8, 8, 1]` float32 in [-1, 1], and their labels."""
    found = load_digits()
    return (found.images[..., None] / 8 - 1).astype(np.float32), found.target.astype(np.int32)
