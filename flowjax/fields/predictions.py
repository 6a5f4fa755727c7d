"""Kinds of network predictions, and the data and noise that each implies in a noisy point."""

from typing import NamedTuple

from jaxtyping import Array, Float

from flowjax.path import expand_like

PREDICTIONS = ("velocity", "denoised", "epsilon", "score", "v")


class Coefficients(NamedTuple):
    """Coefficients of a model's own noisy point `x = α x_1 + σ x_0` at the time it is asked at; scalars or `[B]`."""

    alpha: Array
    sigma: Array
    alpha_dot: Array | None = None
    sigma_dot: Array | None = None
    """Derivatives by the model's own t, which rises towards data. None where the schedule has no velocity."""


class DataAndNoise(NamedTuple):
    """The data and noise that a prediction implies: `x = α data + σ noise`."""

    data: Float[Array, "B *shape"]
    """E[x_1 | x]."""
    noise: Float[Array, "B *shape"]
    """E[x_0 | x]."""


def data_and_noise(
    prediction: str, predicted: Float[Array, "B *shape"], x: Float[Array, "B *shape"], coefficients: Coefficients
) -> DataAndNoise:
    """The data D and the noise E that a prediction p names, at `x = α D + σ E`.

        velocity   p = α' D + σ' E      D = (σ' x - σ p) / d, E = (α p - α' x) / d, d = α σ' - α' σ
        denoised   p = D                E = (x - α p) / σ
        epsilon    p = E                D = (x - σ p) / α
        score      p = -E / σ           D = (x + σ² p) / α
        v          p = α E - σ D        D = α x - σ p, E = σ x + α p, where α² + σ² = 1

    Args:
      prediction: one of `PREDICTIONS`.
      predicted, x: `[B, *shape]`, in the model's own units.

    Raises:
      ValueError: a velocity where the schedule has none.

    References:
      Salimans and Ho 2022 (v); Song et al. 2021 (score); arXiv 2512.02826, section 2 (velocity).
    """
    alpha, sigma = (expand_like(part, x) for part in coefficients[:2])
    if prediction == "denoised":
        return DataAndNoise(predicted, (x - alpha * predicted) / sigma)
    if prediction == "epsilon":
        return DataAndNoise((x - sigma * predicted) / alpha, predicted)
    if prediction == "score":
        return DataAndNoise((x + sigma**2 * predicted) / alpha, -sigma * predicted)
    if prediction == "v":
        return DataAndNoise(alpha * x - sigma * predicted, sigma * x + alpha * predicted)
    if coefficients.alpha_dot is None or coefficients.sigma_dot is None:
        raise ValueError("prediction = 'velocity': this schedule has none; a diffusion model predicts epsilon, v, denoised or score")
    alpha_dot, sigma_dot = expand_like(coefficients.alpha_dot, x), expand_like(coefficients.sigma_dot, x)
    determinant = alpha * sigma_dot - alpha_dot * sigma
    return DataAndNoise((sigma_dot * x - sigma * predicted) / determinant, (alpha * predicted - alpha_dot * x) / determinant)
