"""How precisely the two matmuls of a posterior multiply."""

from typing import Literal, get_args

import jax

Precision = Literal["highest", "high", "default"]
"""Of the two matmuls. `highest` is float32, and what it cannot resolve is recomputed in float64: velocity within 1e-5 of exact.
`high` (bf16x3) and `default` (bf16) leave the recomputing out and let the accelerator multiply in fewer passes, for speed. On CPU
all matmuls are float32, and the three differ only in the recomputing: measured on digits, t in [0.001, 0.999], the velocity of
`high` and `default` there is within 1e-5 as well; only heavy clusters of near-duplicates late in time need more."""


def check_precision(precision: str) -> Precision:
    """`precision`, or ValueError with the choices."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
    return precision  # type: ignore[return-value]


LAX_PRECISION = {"highest": jax.lax.Precision.HIGHEST, "high": jax.lax.Precision.HIGH, "default": jax.lax.Precision.DEFAULT}
