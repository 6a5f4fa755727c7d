"""Softmax-weighted moments of a data set, given noisy queries: `posterior` is the door, `reference` the definition."""

from kernels.posterior.api import Moments, posterior
from kernels.posterior.blocks import BlockSizes, Precision
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.reference import reference
from kernels.posterior.samples import Samples, prepare

__all__ = ["BlockSizes", "Moments", "Precision", "Samples", "TpuBlocks", "posterior", "prepare", "reference"]
