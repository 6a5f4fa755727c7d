"""LightningDiT again, in NumPy and float64, from the published description and the tensors' names: [B, C, H, W] in and out."""

import numpy as np


def silu(x):
    return x / (1 + np.exp(-x))


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotary(x, cos, sin):
    """x [B, heads, T, d] as complex numbers x_2i + i x_2i+1, each times exp(i angle)."""
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * (cos[:, 0::2] + 1j * sin[:, 0::2])
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = z.real, z.imag
    return out


def tables(head_dim, side):
    """Angles of token (row, column): row · θ^(-2i/half) for the first half of a head, column · θ^(-2i/half) for the second."""
    half = head_dim // 2
    angles = np.zeros((side * side, head_dim))
    for row in range(side):
        for column in range(side):
            for i in range(half // 2):
                frequency = 10000.0 ** (-2 * i / half)
                angles[row * side + column, 2 * i : 2 * i + 2] = row * frequency
                angles[row * side + column, half + 2 * i : half + 2 * i + 2] = column * frequency
    return np.cos(angles), np.sin(angles)


def positions(width, side):
    """MAE's sin-cos vectors: columns first, then rows; sines, then cosines."""
    quarter = width // 4
    out = np.zeros((side * side, width))
    for row in range(side):
        for column in range(side):
            for i in range(quarter):
                frequency = 10000.0 ** (-i / quarter)
                for half, place in ((0, column), (1, row)):
                    out[row * side + column, 2 * half * quarter + i] = np.sin(place * frequency)
                    out[row * side + column, (2 * half + 1) * quarter + i] = np.cos(place * frequency)
    return out


def forward(tensors, x, t, label, head_dim):
    """The velocity; every position table is made anew, none is taken from the tensors."""
    p = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    width, channels, patch, _ = p["x_embedder.proj.weight"].shape
    b, _, height, _ = x.shape
    side = height // patch

    def linear(name, v):
        return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    tokens = np.zeros((b, side * side, width))
    for row in range(side):  # the convolution, patch by patch
        for column in range(side):
            window = x[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens[:, row * side + column] = np.einsum("bchw,dchw->bd", window, p["x_embedder.proj.weight"])
    h = tokens + p["x_embedder.proj.bias"] + positions(width, side)
    angle = np.asarray(t, np.float64)[:, None] * np.exp(-np.log(10000) * np.arange(128) / 128)
    c = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", np.concatenate([np.cos(angle), np.sin(angle)], 1))))
    c = c + p["y_embedder.embedding_table.weight"][label]
    cos, sin = tables(head_dim, side)
    for i in range(1 + max(int(name.split(".")[1]) for name in p if name.startswith("blocks."))):
        block = f"blocks.{i}."
        shift, scale, gate, shift2, scale2, gate2 = np.split(linear(block + "adaLN_modulation.1", silu(c))[:, None], 6, -1)
        qkv = linear(block + "attn.qkv", rms_norm(h, p[block + "norm1.weight"]) * (1 + scale) + shift)
        q, k, v = qkv.reshape(b, side * side, 3, width // head_dim, head_dim).transpose(2, 0, 3, 1, 4)
        if block + "attn.q_norm.weight" in p:
            q, k = rms_norm(q, p[block + "attn.q_norm.weight"]), rms_norm(k, p[block + "attn.k_norm.weight"])
        q, k = rotary(q, cos, sin), rotary(k, cos, sin)
        attended = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(head_dim)) @ v
        h = h + gate * linear(block + "attn.proj", attended.transpose(0, 2, 1, 3).reshape(b, side * side, width))
        first, second = np.split(linear(block + "mlp.w12", rms_norm(h, p[block + "norm2.weight"]) * (1 + scale2) + shift2), 2, -1)
        h = h + gate2 * linear(block + "mlp.w3", silu(first) * second)
    shift, scale = np.split(linear("final_layer.adaLN_modulation.1", silu(c))[:, None], 2, -1)
    out = linear("final_layer.linear", rms_norm(h, p["final_layer.norm_final.weight"]) * (1 + scale) + shift)
    image = out.reshape(b, side, side, patch, patch, -1).transpose(0, 5, 1, 3, 2, 4).reshape(b, -1, height, height)
    return image[:, :channels]
