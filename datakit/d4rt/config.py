"""Sizes of the model: named configurations, and what they cost."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from datakit.errors import UsageError

#: Numbers the decoder gives for a query (arXiv 2512.08924, section 3), in the order of the last layer's rows.
OUTPUTS = {"xyz": 3, "uv": 2, "visible": 1, "displacement": 3, "normal": 3, "confidence": 1}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """What a D4RT model is made of. Where the paper gives no number the choice is explained in docs/model.md.

    Attributes:
        image_size: Side of the square frames the encoder sees, pixels.
        num_frames: Most frames of a clip: the length of the three time tables.
        tubelet: Frames of a token.
        patch: Side of a token, pixels.
        encoder_width: Channels of a token.
        encoder_depth: Attention layers; even ones (from 0) look at one slice of `tubelet` frames, odd ones at all.
        encoder_heads: Heads of each.
        encoder_hidden: Hidden channels of the encoder's MLPs.
        decoder_width: Channels of a query.
        decoder_depth: Cross-attention layers.
        decoder_heads: Heads of each.
        decoder_mlp_ratio: Hidden channels of each of a decoder layer's two MLPs, as a multiple of its width.
        fourier_bands: Octaves of the Fourier features of (u, v).
        query_patch: Side of the colour patch of a query, pixels; odd.
        positions: How a token's place is told: `videomae` is the fixed table of VideoMAE V2, `separable` a fixed
            sine table with channels of its own for time, row and column.
        position_grid: Tokens along a side of the images that `videomae` positions were trained with, 14 for its
            ViT-B and ViT-L, 16 for its ViT-g; None for the side of this model.
        confidence: Activation of the confidence: `sigmoid` (0, 1) or `exp`, unbounded.
        activation_checkpointing: Keep no activations inside a layer while training; compute them again.
    """

    image_size: PositiveInt = 256
    num_frames: PositiveInt = 48
    tubelet: PositiveInt = 2
    patch: PositiveInt = 16
    encoder_width: PositiveInt = 1408
    encoder_depth: PositiveInt = 40
    encoder_heads: PositiveInt = 16
    encoder_hidden: PositiveInt = 6144
    decoder_width: PositiveInt = 1280
    decoder_depth: PositiveInt = 8
    decoder_heads: PositiveInt = 16
    decoder_mlp_ratio: float = Field(default=1.7, gt=0)
    fourier_bands: PositiveInt = 8
    query_patch: PositiveInt = 9
    positions: Literal["videomae", "separable"] = "videomae"
    position_grid: PositiveInt | None = None
    confidence: Literal["sigmoid", "exp"] = "sigmoid"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for whole, part in (
            ("image_size", "patch"),
            ("encoder_width", "encoder_heads"),
            ("decoder_width", "decoder_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise UsageError(
                    f"{whole} is no multiple of {part}",
                    found=f"{whole}={getattr(self, whole)}, {part}={getattr(self, part)}",
                )
        if self.query_patch % 2 == 0:
            raise UsageError("query_patch has no middle pixel", expected="odd", found=self.query_patch)
        if self.encoder_width % 2:
            raise UsageError("encoder_width must be even for sines and cosines", found=self.encoder_width)

    @property
    def grid(self) -> int:
        """Tokens along a side of a frame."""
        return self.image_size // self.patch

    @property
    def num_slices(self) -> int:
        """Slices of `tubelet` frames in the longest clip."""
        return -(-self.num_frames // self.tubelet)

    @property
    def decoder_hidden(self) -> int:
        """Hidden channels of a decoder MLP."""
        return round(self.decoder_width * self.decoder_mlp_ratio)


#: `paper` is the model of arXiv 2512.08924: ViT-g (VideoMAE V2's 1408 wide, 16 heads, MLP 6144) and a decoder of eight
#: layers with 144 M parameters. `large` is its ablation default (ViT-L, six decoder layers). `base` is ViT-B. The
#: first three take VideoMAE V2 weights; `small` and `tiny` are ours.
CONFIGS: dict[str, ModelConfig] = {
    "paper": ModelConfig(position_grid=16),
    "large": ModelConfig(
        encoder_width=1024,
        encoder_depth=24,
        encoder_hidden=4096,
        decoder_width=1024,
        decoder_depth=6,
        position_grid=14,
    ),
    "base": ModelConfig(
        encoder_width=768,
        encoder_depth=12,
        encoder_heads=12,
        encoder_hidden=3072,
        decoder_width=768,
        decoder_depth=6,
        decoder_heads=12,
        position_grid=14,
    ),
    "small": ModelConfig(
        encoder_width=384,
        encoder_depth=12,
        encoder_heads=6,
        encoder_hidden=1536,
        decoder_width=384,
        decoder_depth=4,
        decoder_heads=6,
        positions="separable",
    ),
    "tiny": ModelConfig(
        image_size=64,
        num_frames=8,
        patch=8,
        encoder_width=128,
        encoder_depth=6,
        encoder_heads=4,
        encoder_hidden=256,
        decoder_width=128,
        decoder_depth=3,
        decoder_heads=4,
        positions="separable",
    ),
}


def find_config(name: str) -> ModelConfig:
    """Return the configuration of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in CONFIGS:
        raise UsageError("Unknown model configuration", found=name, expected=", ".join(CONFIGS))
    return CONFIGS[name]


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Count trained numbers without allocating them.

    Returns:
        `encoder` (tokens, layers, aspect token), `decoder` (its layers and last norm), `query` (embedding of a
        query), `head` (the 13 outputs), and `total`.
    """
    import torch

    from .model import D4RT

    with torch.device("meta"):
        model = D4RT(config)
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
    }
    return counts | {"total": sum(counts.values())}


def forward_flops(
    config: ModelConfig, batch: int = 1, frames: int | None = None, queries: int = 2048
) -> dict[str, int]:
    """Floating-point operations of matrix products in one forward pass (a multiply-add is two).

    A training step is three times as many: recomputed activations are not counted, as is usual for MFU.

    Args:
        config: The model.
        batch: Clips.
        frames: Frames of each; None for `num_frames`.
        queries: Queries of each.

    Returns:
        `encoder`, `keys_values` (projections of the memory for the decoder, once a clip), `queries` (all else in
        the decoder), and `total`.
    """
    slices = -(-(frames or config.num_frames) // config.tubelet)
    spatial = config.grid**2
    tokens, memory = slices * spatial, slices * spatial + 1
    width, hidden = config.encoder_width, config.encoder_hidden
    dense = 4 * width**2 + 2 * width * hidden
    local, whole = (config.encoder_depth + 1) // 2, config.encoder_depth // 2
    encoder = (
        tokens * width * 3 * config.tubelet * config.patch**2
        + local * tokens * (dense + 2 * spatial * width)
        + whole * memory * (dense + 2 * memory * width)
    )
    inner = config.decoder_width
    keys_values = config.decoder_depth * memory * 2 * width * inner
    a_layer = 2 * inner**2 + 4 * inner * config.decoder_hidden + 2 * memory * inner
    embedding = (2 + 4 * config.fourier_bands + 3 * config.query_patch**2 + inner) * inner
    per_query = config.decoder_depth * a_layer + embedding + sum(OUTPUTS.values()) * inner
    parts = {"encoder": encoder, "keys_values": keys_values, "queries": queries * per_query}
    flops = {name: 2 * batch * macs for name, macs in parts.items()}
    return flops | {"total": sum(flops.values())}
