"""The TPU compiler on a machine without a TPU: the devices of a slice, and the memory that a program compiled for them takes."""

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.experimental import topologies

from kernels.posterior.pallas.tpu_blocks import GENERATIONS, Generation

_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
"""Environment of the compiler: no metadata server, several compilers at a time, no warnings that there is no TPU."""


def without_tpu() -> None:
    """Keep this process from searching for a TPU. To be called before libtpu is loaded."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def generation_of_topology(topology: str) -> Generation:
    """The generation that a topology's name begins with.

    Raises:
      ValueError: an unknown one, or a name without a shape.
    """
    name, colon, shape = topology.partition(":")
    if name not in GENERATIONS or not colon or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise ValueError(f"topology must be one of {', '.join(GENERATIONS)}, a colon and a shape such as v5e:16x16; got {topology!r}")
    return GENERATIONS[name]


def devices_of(topology: str) -> Sequence[jax.Device]:
    """The devices of a slice, to compile for.

    Raises:
      ValueError: a shape that the generation does not come in.
      RuntimeError: no libtpu.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError(
            'this needs libtpu: pip install "flowjax-oracle[tpu]", from the checkout: pip install -e ".[tpu]" (Linux on x86-64 only)'
        )
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # jaxlib raises its own kinds, by version
        raise ValueError(f"the compiler knows no topology {topology!r}: {str(error).splitlines()[0][:200]}") from error


class Memory(NamedTuple):
    """Bytes of one device that a program takes."""

    arguments: int
    """Arguments, those whose memory results take over included."""
    results: int
    """Results in memory of their own."""
    temporaries: int

    @property
    def total(self) -> int:
        """Of all three."""
        return sum(self)


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """The memory that a compiled program takes of each device."""
    sizes = compiled.memory_analysis()
    assert sizes is not None
    return Memory(sizes.argument_size_in_bytes, sizes.output_size_in_bytes - sizes.alias_size_in_bytes, sizes.temp_size_in_bytes)
