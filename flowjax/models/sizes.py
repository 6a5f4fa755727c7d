"""Architectures of LightningDiT: their numbers, validated, and named sizes."""

import dataclasses
import difflib

SIZES = {
    # depth, width, heads: the published ones
    "XL": (28, 1152, 16),
    "L": (24, 1024, 16),
    "B": (12, 768, 12),
    "S": (12, 384, 6),
    # and small ones for 28x28 and 8x8 images; the smallest are there to be too small
    "Ti": (6, 192, 3),
    "Mi": (4, 96, 2),
    "Na": (2, 48, 2),
    "Pi": (1, 24, 2),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a LightningDiT. Hashable: static under `jax.jit`.

    Attributes:
      image_shape: (H, W, C) of images or latents.
      patch: side of the square patches that become tokens.
      depth, width, heads: layers, their width, and attention heads; width / heads is a multiple of 4, which rotary embedding in two
        dimensions needs.
      num_classes: labels 0..num_classes - 1; num_classes itself is the null label. 0: no classes, the null label alone.
      qk_norm: RMSNorm of queries and keys, for long training runs.
      learn_sigma: the last layer has twice the channels, of which the second half is not used.

    Raises:
      ValueError: numbers that do not fit together.
    """

    image_shape: tuple[int, int, int]
    patch: int
    depth: int
    width: int
    heads: int
    num_classes: int
    qk_norm: bool = False
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        height, width, channels = self.image_shape
        if min(height, width, channels, self.patch, self.depth, self.width, self.heads) < 1 or self.num_classes < 0:
            raise ValueError(f"model: every size must be at least 1, got {self}")
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch = {self.patch} does not divide images of {height}x{width}: expected a divisor of both")
        if self.width % self.heads or self.head_dim % 4:
            raise ValueError(
                f"width = {self.width}, heads = {self.heads}: expected a width of heads times a multiple of 4 (rotary positions in 2-D)"
            )
        if self.width % 4:
            raise ValueError(f"width = {self.width}: expected a multiple of 4 (sin-cos positions in 2-D)")

    @classmethod
    def named(cls, size: str, image_shape: tuple[int, ...], num_classes: int, *, qk_norm: bool = False) -> "Architecture":
        """The architecture of a name, `SIZE/PATCH`: "XL/1", "B/1", "Ti/4", ..., for images of a shape.

        Raises:
          ValueError: a name that is not one, images that are not [H, W, C], a patch that does not divide them.
        """
        name, slash, patch = size.partition("/")
        if name not in SIZES or not slash or not patch.isdigit() or patch == "0":
            near = difflib.get_close_matches(name, SIZES, n=1, cutoff=0.3)
            hint = f" (did you mean {near[0]}/1?)" if near else ""
            raise ValueError(f"unknown model size {size!r}{hint}; expected SIZE/PATCH with SIZE one of {', '.join(SIZES)}")
        if len(image_shape) != 3:
            raise ValueError(f"image_shape = {tuple(image_shape)}: LightningDiT takes images or latents of shape [H, W, C]")
        height, width, channels = image_shape
        return cls((height, width, channels), int(patch), *SIZES[name], num_classes=num_classes, qk_norm=qk_norm)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Width within the SwiGLU: two thirds of four times the width, rounded down."""
        return int(2 / 3 * 4 * self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_shape[0] // self.patch, self.image_shape[1] // self.patch

    @property
    def tokens(self) -> int:
        """Patches in an image."""
        return self.grid[0] * self.grid[1]

    @property
    def out_channels(self) -> int:
        """Channels of the last layer."""
        return self.image_shape[2] * (2 if self.learn_sigma else 1)
