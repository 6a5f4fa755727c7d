"""How a posterior is computed: what is static of it."""

import dataclasses

from kernels.posterior.blocks import BlockSizes, Precision
from kernels.posterior.distributed.collectives import ONE_DEVICE, Shards
from kernels.posterior.pallas.tpu_blocks import Generation, TpuBlocks


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
