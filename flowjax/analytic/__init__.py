"""Analytic fields: what else than the oracle a network may compute, in closed form from the data.

    from flowjax.analytic import gaussian, patch, pca_local, smoothed

    field = patch(images, labels, size=9, anywhere=True)
    field(x_t, t, label)                # velocity [B, *shape], as every field of flowjax.fields
    field.denoised(x_t, t, label)       # E[x_1 | x_t] of this model of the data, [B, *shape]

`gaussian` is the best linear denoiser, `smoothed` the oracle of data with added noise; `patch` and `pca_local` see only a part of x for
each pixel. docs/analytic-fields.md says what each is, when it is exact, and what it costs.
"""

from flowjax.analytic.analytic_field import AnalyticField
from flowjax.analytic.gaussian_field import GaussianField, gaussian
from flowjax.analytic.patch_field import PatchField, patch, patch_from_source
from flowjax.analytic.patch_field_mesh import MeshPatchField
from flowjax.analytic.pca_local_field import PcaLocalField, pca_local
from flowjax.analytic.smoothed_field import SmoothedField, smoothed

__all__ = [
    "AnalyticField",
    "GaussianField",
    "MeshPatchField",
    "PatchField",
    "PcaLocalField",
    "SmoothedField",
    "gaussian",
    "patch",
    "patch_from_source",
    "pca_local",
    "smoothed",
]
