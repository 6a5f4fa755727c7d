"""The optimum of a small data set in PyTorch, float64, channels first: what a network trained to the end answers, however it is asked.

Written from the definitions, apart from everything in flowjax.
"""

import dataclasses
import math

import numpy as np
import torch


@dataclasses.dataclass
class Optimum:
    """`optimum(x, time, label)`, x `[B, C, H, W]`.

    Attributes:
      data: `[N, C, H, W]`; labels: `[N]`.
      prediction: what it returns.
      schedule: rectified_flow, cosine, ddpm or edm.
      time: what it is told.
      alphas_cumprod: of ddpm.
      noise_scale: c of x = t x_1 + c (1 - t) x_0.
    """

    data: torch.Tensor
    labels: torch.Tensor
    prediction: str = "velocity"
    schedule: str = "rectified_flow"
    time: str = "data_is_one"
    alphas_cumprod: np.ndarray | None = None
    noise_scale: float = 1.0
    null_label: int | None = None

    def __call__(self, x: torch.Tensor, time: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        assert x.shape[1:] == self.data.shape[1:]
        alpha, sigma, alpha_dot, sigma_dot = (part.reshape(-1, 1, 1, 1) for part in self._coefficients(time))
        x = x.double()
        differences = (x[:, None] - alpha[:, None] * self.data[None]).flatten(2)
        scores = -differences.pow(2).sum(2) / (2 * sigma.flatten(1) ** 2)
        if label is not None:
            own = label[:, None] == self.labels[None]
            scores = scores.masked_fill(~own & (label != self.null_label)[:, None], -math.inf)
        denoised = (scores.softmax(1) @ self.data.flatten(1)).reshape(x.shape)
        noise = (x - alpha * denoised) / sigma
        return {
            "velocity": alpha_dot * denoised + sigma_dot * noise,
            "denoised": denoised,
            "epsilon": noise,
            "score": -noise / sigma,
            "v": alpha * noise - sigma * denoised,
        }[self.prediction].float()

    def _coefficients(self, time: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.schedule == "ddpm":
            assert self.alphas_cumprod is not None
            kept = torch.tensor(self.alphas_cumprod, dtype=torch.float64)
            if time.is_floating_point():  # between two steps, linearly in log-SNR
                ratio = (kept / (1 - kept)).log()
                low = time.double().floor().long().clamp(max=len(kept) - 2)
                kept = torch.sigmoid(ratio[low] + (time.double() - low) * (ratio[low + 1] - ratio[low]))
            else:
                kept = kept[time]
            return kept.sqrt(), (1 - kept).sqrt(), 0 * kept, 0 * kept
        time = time.double()
        if self.schedule == "edm":
            sigma = time if self.time == "sigma" else (4 * time).exp()
            return torch.ones_like(sigma), sigma, 0 * sigma, 0 * sigma
        t = {"data_is_one": time, "noise_is_one": 1 - time, "thousand": 1 - time / 1000}[self.time]
        if self.schedule == "cosine":
            angle = math.pi / 2 * t
            return angle.sin(), angle.cos(), math.pi / 2 * angle.cos(), -math.pi / 2 * angle.sin()
        c = self.noise_scale
        return t, c * (1 - t), torch.ones_like(t), -c * torch.ones_like(t)
