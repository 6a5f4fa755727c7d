"""Softmax-weighted moments of a data set, given noisy queries: `posterior` is the door, `reference` the definition."""

from kernels.posterior.api import posterior
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.reference import reference
from kernels.posterior.settings import BlockSizes
from kernels.posterior.types import Moments, Samples, prepare
from kernels.precision import Precision

__all__ = ["BlockSizes", "Moments", "Precision", "Samples", "TpuBlocks", "posterior", "prepare", "reference"]
