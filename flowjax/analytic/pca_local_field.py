"""`pca_local`: each number of a sample from the posterior over what the data's covariance says matters to it."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from flowjax.analysis.spectrum import principal_components
from flowjax.analytic.analytic_field import HostField, HostQueries, LabelledRows, labelled_rows
from flowjax.path import Path
from kernels.patches.masked import masked_means


class PcaLocalField(HostField):
    """A field of masks from the Wiener filter. Made by `pca_local`."""

    def __init__(self, samples: LabelledRows, path: Path | None, threshold: float):
        super().__init__(samples.shape, samples.classes, path)
        self.samples = samples
        self._threshold, self._components = threshold, principal_components(samples.rows)

    def mask(self, alpha: float, sigma: float) -> Bool[np.ndarray, "D D"]:
        """Row i: which numbers of x the prediction of number i sees."""
        _, vectors, values = self._components
        filtered = np.abs((vectors * (alpha**2 * values / (alpha**2 * values + sigma**2))) @ vectors.T)
        # Constant numbers, and all at α = 0, have a filter of zeros: they see themselves.
        return (filtered > self._threshold * filtered.max(axis=1, keepdims=True)) | np.eye(len(filtered), dtype=bool)

    def _predict(self, queries: HostQueries) -> Float[np.ndarray, "B *shape"]:
        x = queries.x.reshape(len(queries.x), -1)
        found = np.empty(x.shape)
        for time, label in np.unique(np.stack([queries.t.astype(np.float64), queries.label.astype(np.float64)]), axis=1).T:
            (rows,) = np.nonzero((queries.t == time) & (queries.label == label))
            alpha, sigma = float(queries.alpha[rows[0]]), float(queries.sigma[rows[0]])
            samples = self.samples.rows[self.samples.classes[int(label)]]
            found[rows] = masked_means(samples, x[rows], alpha, sigma, self.mask(alpha, sigma))
        return found.reshape(queries.x.shape)


def pca_local(data: ArrayLike, labels: ArrayLike | None = None, path: Path | None = None, *, threshold: float = 0.02) -> PcaLocalField:
    """Locality from the data's covariance: each number has a posterior of its own, from the numbers that the Wiener filter reads for it.

    With Σ the covariance of all samples, W = α² Σ (α² Σ + σ² I)⁻¹ the Wiener filter at t, M_ij = 1 where |W_ij| > θ max_k |W_ik|, else 0:

        E[x_1(i) | x_t] = Σ_n γ_n y_n(i),  γ = softmax_n(-Σ_j M_ij (x_j - α y_nj)² / 2σ²)

    Early in time W spans the leading principal components, and a number sees much of x; late in time W is near the identity, and it sees
    its surroundings. Exact for the mask so defined: every sample is weighed. θ is relative to the largest entry of each row; the authors'
    own program takes it relative to the largest of all rows, each divided by its diagonal, and averages the softmaxes of batches.

    Args:
      data: `[N, *shape]`, real. Shapes do not matter: there is no notion of place but the covariance's.
      labels: `[N]` integers >= 0, or None. The masks are those of all samples, the posterior that of the class.
      path: the probability path; None: rectified flow.
      threshold: θ, in [0, 1). The lower it is, the more a number sees.

    Raises:
      ValueError: data or labels that do not fit; min(N, D) above 8,192; a threshold outside [0, 1); at t = 1.

    References:
      Lukoianov et al. 2025, Locality in image diffusion models emerges from data statistics, arXiv 2509.09672, equation 8.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold = {threshold}: expected a share of the largest entry of a row, in [0, 1)")
    return PcaLocalField(labelled_rows(data, labels), path, float(threshold))
