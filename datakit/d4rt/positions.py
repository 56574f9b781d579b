"""Fixed tables of token positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig

#: Base of the wave lengths in VideoMAE V2's table (its modeling_finetune.py, get_sinusoid_encoding_table).
_VIDEOMAE_BASE = 10000.0
#: Shortest wave of the separable table, in steps.
_SHORTEST_WAVE = 4.0
#: Its longest, as a multiple of the axis: slow enough never to repeat.
_LONGEST_WAVE = 4.0


def position_table(config: ModelConfig) -> Tensor:
    """Return the (slices, tokens of a slice, C) float32 table of a model."""
    if config.positions == "videomae":
        grid = config.position_grid or config.grid
        table = _videomae_table(config.num_slices, grid, config.encoder_width)
        return _resize(table, grid, config.grid).float()
    return _separable_table(config.num_slices, config.grid, config.encoder_width).float()


def _videomae_table(slices: int, grid: int, width: int) -> Tensor:
    """Sines (even channels) and cosines (odd ones) of the token's number: slice-major, then row, then column."""
    number = torch.arange(slices * grid**2, dtype=torch.float64, device="cpu")
    channel = torch.arange(width, dtype=torch.float64, device="cpu")
    angle = number[:, None] / _VIDEOMAE_BASE ** (2 * (channel // 2) / width)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return table.view(slices, grid**2, width)


def _resize(table: Tensor, grid: int, new_grid: int) -> Tensor:
    """Resample the slices of a table, as VideoMAE V2 does for other image sizes (its run_class_finetuning.py)."""
    if grid == new_grid:
        return table
    planes = table.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=(new_grid, new_grid), mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1).flatten(1, 2)


def _separable_table(slices: int, grid: int, width: int) -> Tensor:
    """A third of the channels for the row, a third for the column, the rest for time."""
    across = 2 * (width // 6)
    along = width - 2 * across
    time = _waves(slices, along)[:, None, None]
    row = _waves(grid, across)[None, :, None]
    column = _waves(grid, across)[None, None]
    shape = (slices, grid, grid)
    table = torch.cat([part.expand(*shape, part.shape[-1]) for part in (time, row, column)], dim=-1)
    return table.flatten(1, 2)


def _waves(length: int, width: int) -> Tensor:
    """(length, width) sines, then cosines; waves run from `_SHORTEST_WAVE` steps to `_LONGEST_WAVE` axes."""
    count = width // 2
    longest = max(_LONGEST_WAVE * length, _SHORTEST_WAVE)
    exponent = torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")
    wave = _SHORTEST_WAVE * (longest / _SHORTEST_WAVE) ** exponent
    place = torch.arange(length, dtype=torch.float64, device="cpu") + 0.5
    angle = 2 * torch.pi * place[:, None] / wave
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
