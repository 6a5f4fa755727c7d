"""How a posterior is computed: what is static of it. Frozen and validated; every default has its reason."""

import dataclasses

from kernels.posterior.distributed.collectives import ONE_DEVICE, Shards
from kernels.posterior.pallas.tpu_blocks import Generation, TpuBlocks
from kernels.precision import Precision


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """How many samples and queries are processed at a time.

    samples: rows of data in one step of the scan. 4,096 by 256 scores are 4 MB: they stay in a last-level cache between the two
      matmuls, and the matmuls are long enough to run at their full rate.
    queries: rows of queries in one scan over the data. More queries reread the data less often; past 256 the scores no longer fit.
    """

    samples: int = 4096
    queries: int = 256

    def __post_init__(self) -> None:
        for name in ("samples", "queries"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"BlockSizes.{name} must be a positive integer, got {value!r}")


def default_block_sizes(implementation: str) -> BlockSizes:
    """The fused TPU kernel reads the data once for 1,024 queries and cuts up the rest itself; the others keep scores in a cache."""
    return BlockSizes(queries=1024) if implementation == "pallas_tpu" else BlockSizes()


@dataclasses.dataclass(frozen=True)
class PosteriorSettings:
    """How a posterior is computed; static under jit."""

    full: bool
    blocks: BlockSizes
    precision: Precision
    implementation: str
    shards: Shards = ONE_DEVICE
    limit: bool = True
    """Whether some σ may be 0; False spares compiling what answers it."""
    tolerance: float = 0.0
    """Share of a query's weight whose samples its mean may lack. `streaming` and `pallas_gpu` leave none out."""
    fused: TpuBlocks | None = None
    """Blocks of the fused TPU kernel; None: the default of the generation."""
    generation: Generation | None = None
    """The TPU to compile for; None: that of the first device."""

    @property
    def chosen_blocks(self) -> BlockSizes | TpuBlocks:
        """What `plan` was given, or would have been."""
        return self.fused or self.blocks
