"""Video -> memory: tubelet tokens, layers that look at one slice and at all in turn, an aspect-ratio token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import ModelConfig
from .layers import Colours, EncoderBlock, Linear, layer_norm
from .positions import position_table


class TubeletKernel(nn.Conv3d):
    """The kernel of tubelets; it starts as VideoMAE V2's does, like a linear layer."""

    def __init__(self, config: ModelConfig) -> None:
        kernel = (config.tubelet, config.patch, config.patch)
        super().__init__(3, config.encoder_width, kernel, stride=kernel)

    def reset_parameters(self) -> None:
        """Draw the weight as if it were a matrix."""
        nn.init.xavier_uniform_(self.weight.flatten(1))
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class TubeletEmbedding(nn.Module):
    """Cut a video into tubelets and map each to a token.

    A 3D convolution whose stride is its kernel, written as the matrix product that it is: the weight keeps the
    shape of the convolution's, so that VideoMAE's loads, but the product is what fast kernels are made for.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tubelet, self.patch = config.tubelet, config.patch
        self.proj = TubeletKernel(config)

    def forward(self, video: Tensor) -> Tensor:
        """Map (B, T, 3, H, W), T a multiple of the tubelet, to (B, slices, tokens of a slice, C)."""
        batch, frames, _, height, width = video.shape
        time, size = self.tubelet, self.patch
        pieces = video.reshape(batch, frames // time, time, 3, height // size, size, width // size, size)
        # Kernel order is colour, time, row, column.
        pieces = pieces.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(2, 3)
        return nn.functional.linear(pieces, self.proj.weight.flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """The video encoder of arXiv 2512.08924, figure 7: `depth` layers, alternately within a slice and over all.

    A frame that is masked is replaced by nothing (zeros after normalisation) before the tokens are cut, and a
    slice without any valid frame is never attended to; so masked frames do not influence the result.
    """

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tubelet = config.tubelet
        self.colours = Colours()
        self.activation_checkpointing = config.activation_checkpointing
        self.patch_embed = TubeletEmbedding(config)
        self.aspect = Linear(1, config.encoder_width)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.encoder_width, config.encoder_heads, config.encoder_hidden)
            for _ in range(config.encoder_depth)
        )
        self.norm = layer_norm(config.encoder_width)
        shape = (config.num_slices, config.grid**2, config.encoder_width)
        self.register_buffer("positions", torch.empty(shape), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the table of positions; it is no part of a checkpoint."""
        if not self.positions.is_meta:
            self.positions.copy_(position_table(self.config))

    def forward(
        self, video: Tensor, frame_mask: Tensor | None, aspect_ratio: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Encode clips.

        Args:
            video: (B, T, 3, H, W) uint8 or float in [0, 1].
            frame_mask: (B, T) bool, True where a frame is valid; None where all are.
            aspect_ratio: (B,) W / H of what the square frames show, positive.

        Returns:
            tokens (B, slices * H/patch * W/patch + 1, C), the last one of the aspect ratio, and their mask
            (B, the same), None without `frame_mask`.
        """
        frames = self.colours(video)
        if frame_mask is not None:
            frames = torch.where(frame_mask[:, :, None, None, None], frames, 0.0)
        missing = -frames.shape[1] % self.tubelet
        if missing:  # half of the last slice is not there
            frames = nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, 0, missing))
        tokens = self.patch_embed(frames)
        slices, spatial = tokens.shape[1:3]
        # In the positions' type: under autocast the sums over layers stay float32.
        tokens = tokens + self.positions[:slices]
        ratio = aspect_ratio.to(self.positions.dtype).log()[:, None, None]
        aspect = self.aspect(ratio).to(tokens.dtype)
        mask = None if frame_mask is None else self._token_mask(frame_mask, spatial)
        keys = None if mask is None else mask[:, None, None]
        for number, block in enumerate(self.blocks):
            if number % 2 == 0:
                tokens = self._run(block, tokens.flatten(0, 1), None).unflatten(0, (-1, slices))
            else:
                both = self._run(block, torch.cat([tokens.flatten(1, 2), aspect], dim=1), keys)
                tokens, aspect = both[:, :-1].unflatten(1, (slices, spatial)), both[:, -1:]
        return self.norm(torch.cat([tokens.flatten(1, 2), aspect], dim=1)), mask

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, mask, use_reentrant=False)
        return block(x, mask)

    def _token_mask(self, frame_mask: Tensor, spatial: int) -> Tensor:
        """(B, tokens + 1) bool: a token counts if any of its frames does; the aspect ratio's always does."""
        missing = -frame_mask.shape[1] % self.tubelet
        slices = nn.functional.pad(frame_mask, (0, missing)).unflatten(1, (-1, self.tubelet)).any(dim=-1)
        return nn.functional.pad(slices.repeat_interleave(spatial, dim=1), (0, 1), value=True)
