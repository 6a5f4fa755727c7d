"""The leaves of a k-d tree: groups of samples that lie close together.

Source: Friedman, Bentley and Finkel, "An algorithm for finding best matches in logarithmic expected time" (1977).
"""

import numpy as np
from jaxtyping import Float, Int


def leaves_of(points: Float[np.ndarray, "n k"], size: int) -> Int[np.ndarray, "leaves size"]:
    """The points of each leaf: halves of halves, each time along the coordinate in which they spread most, until `size` are left.

    Every leaf is full but the last, which lacks some: -1.
    """
    order = np.arange(len(points), dtype=np.int32)
    parts = [(0, len(points))]
    while parts:
        start, stop = parts.pop()
        if stop - start <= size:
            continue
        own = order[start:stop]
        some = points[own]
        middle = -(-(stop - start) // (2 * size)) * size  # whole leaves on one side
        along = some[:, some.var(axis=0).argmax()]
        order[start:stop] = own[np.argpartition(along, middle - 1)]
        parts += [(start, start + middle), (start + middle, stop)]
    leaves = np.full((-(-len(points) // size), size), -1, np.int32)
    leaves.ravel()[: len(points)] = order
    return leaves
