"""How the work is cut up, and how precisely it is multiplied. Frozen and validated; every default has its reason."""

import dataclasses
from typing import Literal, get_args

import jax

Precision = Literal["highest", "high", "default"]
"""Of the two matmuls. `highest` is float32, and what it cannot resolve is recomputed in float64: velocity within 1e-5 of exact.
`high` (bf16x3) and `default` (bf16) leave the recomputing out and let the accelerator multiply in fewer passes, for speed. On CPU
all matmuls are float32, and the three differ only in the recomputing: measured on digits, t in [0.001, 0.999], the velocity of
`high` and `default` there is within 1e-5 as well; only heavy clusters of near-duplicates late in time need more."""


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


def check_precision(precision: str) -> Precision:
    """`precision`, or ValueError with the choices."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
    return precision  # type: ignore[return-value]


LAX_PRECISION = {"highest": jax.lax.Precision.HIGHEST, "high": jax.lax.Precision.HIGH, "default": jax.lax.Precision.DEFAULT}
