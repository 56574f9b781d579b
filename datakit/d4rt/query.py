"""A query's token: where, when, and what its surroundings look like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .layers import Colours, Linear, Mlp, layer_norm


def gather_patches(frames: Tensor, uv: Tensor, t_src: Tensor, size: int) -> Tensor:
    """Cut the colours around queries out of frames.

    The rule is that of `datakit.queries.cut_patches`: the middle pixel is the one that contains (u, v), the
    spacing is the frames' own, and beyond the border the edge repeats. Memory grows with the patches only, never
    with the frames: no frame is copied for a query.

    Args:
        frames: (B, T, 3, H, W), any dtype; H and W may be larger than the network's.
        uv: (B, N, 2) in [0, 1]^2.
        t_src: (B, N) int64 in [0, T).
        size: Side of a patch, odd.

    Returns:
        (B, N, 3, size, size) of the frames' dtype.
    """
    batch, _, _, height, width = frames.shape
    reach = torch.arange(size, device=uv.device) - size // 2
    column = (uv[..., 0] * width).floor().long()[..., None] + reach
    row = (uv[..., 1] * height).floor().long()[..., None] + reach
    clip = torch.arange(batch, device=uv.device)[:, None, None, None, None]
    colour = torch.arange(3, device=uv.device)[:, None, None]
    return frames[
        clip,
        t_src[:, :, None, None, None],
        colour,
        row.clamp(0, height - 1)[:, :, None, :, None],
        column.clamp(0, width - 1)[:, :, None, None, :],
    ]


class TimeTable(nn.Embedding):
    """A learned vector for each frame of a clip; it starts at the scale of the other parts of a query."""

    def reset_parameters(self) -> None:
        """Draw the vectors."""
        nn.init.normal_(self.weight, std=_TIME_STD)


#: Deviation of the time tables at the start.
_TIME_STD = 0.2


class QueryEmbedding(nn.Module):
    """Fourier features of (u, v) + a learned vector for each of three times + an MLP of the colour patch.

    The sum is normalised. Parts are those of arXiv 2512.08924, section 3.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.bands = config.fourier_bands
        self.colours = Colours()
        self.place = Linear(2 + 4 * config.fourier_bands, width)
        self.source_time = TimeTable(config.num_frames, width)
        self.target_time = TimeTable(config.num_frames, width)
        self.camera_time = TimeTable(config.num_frames, width)
        self.patch = Mlp(width, width, inputs=3 * config.query_patch**2)
        self.norm = layer_norm(width)

    def forward(self, uv: Tensor, t_src: Tensor, t_tgt: Tensor, t_cam: Tensor, patch: Tensor) -> Tensor:
        """Map (B, N) queries to (B, N, C); `patch` is (B, N, 3, size, size) uint8 or float in [0, 1]."""
        colours = self.colours(patch).flatten(2)
        return self.norm(
            self.place(self.fourier(uv).to(colours.dtype))
            + self.source_time(t_src)
            + self.target_time(t_tgt)
            + self.camera_time(t_cam)
            + self.patch(colours)
        )

    def fourier(self, uv: Tensor) -> Tensor:
        """Return (u, v) in [-1, 1] with its sines and cosines, (B, N, 2 + 4 bands); octaves begin at half a wave."""
        octave = torch.pi * 2.0 ** torch.arange(self.bands, device=uv.device, dtype=uv.dtype)
        angle = (uv[..., None] * octave).flatten(-2)
        return torch.cat([2 * uv - 1, angle.sin(), angle.cos()], dim=-1)
