"""Matrix products of the samples with few queries, compiled by numba: they read each sample once, where it lies.

A library's product first copies the samples into an order of its own. That pays where each is multiplied with many queries. With few, the
copy takes longer than the products. Each call runs on one thread, without the GIL.
"""

import numpy as np

from kernels.posterior.cpu.numba_kernels import compiled


# Long: sixteen sums stay in registers.
@compiled
def few_scores(rows, directions, scores):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`scores` `[n, B]` = rows directionsᵀ, four rows and four queries at a time; the last of each are computed again where some lack."""
    n, b = rows.shape[0], directions.shape[0]
    for i in range(0, n, 4):
        i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        y0, y1, y2, y3 = rows[i], rows[i1], rows[i2], rows[i3]
        for q in range(0, b, 4):
            q1, q2, q3 = min(q + 1, b - 1), min(q + 2, b - 1), min(q + 3, b - 1)
            g0, g1, g2, g3 = directions[q], directions[q1], directions[q2], directions[q3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0)
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = np.float32(0)
            for k in range(rows.shape[1]):
                a, c, e, f = y0[k], y1[k], y2[k], y3[k]
                u, v, w, z = g0[k], g1[k], g2[k], g3[k]
                s00, s01, s02, s03 = s00 + a * u, s01 + a * v, s02 + a * w, s03 + a * z
                s10, s11, s12, s13 = s10 + c * u, s11 + c * v, s12 + c * w, s13 + c * z
                s20, s21, s22, s23 = s20 + e * u, s21 + e * v, s22 + e * w, s23 + e * z
                s30, s31, s32, s33 = s30 + f * u, s31 + f * v, s32 + f * w, s33 + f * z
            scores[i3, q3], scores[i3, q2], scores[i3, q1], scores[i3, q] = s33, s32, s31, s30
            scores[i2, q3], scores[i2, q2], scores[i2, q1], scores[i2, q] = s23, s22, s21, s20
            scores[i1, q3], scores[i1, q2], scores[i1, q1], scores[i1, q] = s13, s12, s11, s10
            scores[i, q3], scores[i, q2], scores[i, q1], scores[i, q] = s03, s02, s01, s00


@compiled
def few_sums(weights, rows, begin, end, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Columns `begin` to `end` of `into` `[B, D]` = weights `[n, B]`ᵀ rows: eight rows at a time, 64 rows in float32, and on in float64."""
    n, b, columns, block = rows.shape[0], weights.shape[1], min(1024, end - begin), 64
    some, whole = np.empty((b, columns), np.float32), np.empty((b, columns))
    for first in range(begin, end, max(columns, 1)):  # so many columns of the sums stay in a first cache
        last = min(first + columns, end)
        whole[:] = 0
        for start in range(0, n, block):
            stop, some[:] = min(start + block, n), 0
            eights = start + (stop - start) // 8 * 8
            for i in range(start, eights, 8):
                y0, y1, y2, y3 = rows[i, first:last], rows[i + 1, first:last], rows[i + 2, first:last], rows[i + 3, first:last]
                y4, y5, y6, y7 = rows[i + 4, first:last], rows[i + 5, first:last], rows[i + 6, first:last], rows[i + 7, first:last]
                for q in range(b):
                    w0, w1, w2, w3 = weights[i, q], weights[i + 1, q], weights[i + 2, q], weights[i + 3, q]
                    w4, w5, w6, w7 = weights[i + 4, q], weights[i + 5, q], weights[i + 6, q], weights[i + 7, q]
                    total = some[q]
                    for k in range(last - first):
                        half = (w0 * y0[k] + w1 * y1[k]) + (w2 * y2[k] + w3 * y3[k])
                        total[k] += half + ((w4 * y4[k] + w5 * y5[k]) + (w6 * y6[k] + w7 * y7[k]))
            for i in range(eights, stop):
                row = rows[i, first:last]
                for q in range(b):
                    w, total = weights[i, q], some[q]
                    for k in range(last - first):
                        total[k] += w * row[k]
            for q in range(b):
                for k in range(last - first):
                    whole[q, k] += some[q, k]
        for q in range(b):
            for k in range(last - first):
                into[q, first + k] = whole[q, k]
