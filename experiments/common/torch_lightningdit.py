"""LightningDiT in PyTorch, for `bench_training` to be measured against; with the published names, so that weights can be carried over."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from flowjax.models import Architecture


class RMSNorm(nn.Module):
    """`x / rms(x) * weight`, statistics in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x `[B, heads, T, d]`, pairs turned by their token's angle."""
    pairs = x.unflatten(-1, (-1, 2))
    return x * cos + torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2) * sin


class Attention(nn.Module):
    """Multi-head attention with RoPE."""

    def __init__(self, shape: Architecture):
        super().__init__()
        self.qkv, self.proj = nn.Linear(shape.width, 3 * shape.width), nn.Linear(shape.width, shape.width)
        self.heads = shape.heads

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, t, width = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.proj(attended.transpose(1, 2).reshape(b, t, width))


class SwiGLU(nn.Module):
    """`w3 (silu(a) * b)`, a and b the halves of `w12 x`."""

    def __init__(self, shape: Architecture):
        super().__init__()
        self.w12, self.w3 = nn.Linear(shape.width, 2 * shape.hidden), nn.Linear(shape.hidden, shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by adaLN."""

    def __init__(self, shape: Architecture):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(shape.width), RMSNorm(shape.width)
        self.attn, self.mlp = Attention(shape), SwiGLU(shape)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(shape.width, 6 * shape.width))

    def forward(self, x: torch.Tensor, c: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(c)[:, None].chunk(6, -1)
        x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift, cos, sin)
        return x + mlp_gate * self.mlp(self.norm2(x) * (1 + mlp_scale) + mlp_shift)


class TorchLightningDiT(nn.Module):
    """`model(x, t, label)` with x `[B, C, H, W]`; no QK-norm."""

    def __init__(self, shape: Architecture):
        super().__init__()
        self.shape = shape
        width, patch, channels = shape.width, shape.patch, shape.image_shape[2]
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.tokens, width), requires_grad=False)
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(shape.num_classes + 1, width)})
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.depth)])
        self.final_layer = nn.ModuleDict(
            {
                "norm_final": RMSNorm(width),
                "linear": nn.Linear(width, patch * patch * shape.out_channels),
                "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width)),
            }
        )
        self.feat_rope = nn.Module()
        for name in ("freqs_cos", "freqs_sin"):
            self.feat_rope.register_buffer(name, torch.zeros(shape.tokens, shape.head_dim))

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        tokens = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        c = self.t_embedder["mlp"](torch.cat([angle.cos(), angle.sin()], -1)) + self.y_embedder["embedding_table"](label)
        for block in self.blocks:
            tokens = block(tokens, c, self.feat_rope.freqs_cos, self.feat_rope.freqs_sin)
        shift, scale = self.final_layer["adaLN_modulation"](c)[:, None].chunk(2, -1)
        out = self.final_layer["linear"](self.final_layer["norm_final"](tokens) * (1 + scale) + shift)
        (rows, columns), patch = self.shape.grid, self.shape.patch
        return (
            out.reshape(len(x), rows, columns, patch, patch, -1)
            .permute(0, 5, 1, 3, 2, 4)
            .reshape(len(x), -1, rows * patch, columns * patch)
        )
