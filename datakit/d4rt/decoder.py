"""Queries -> 13 numbers each: cross-attention to the memory, and nothing between queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import OUTPUTS, ModelConfig
from .layers import Linear, Mlp, join_heads, layer_norm, split_heads, wide_float

KeysValuesOfLayer = tuple[Tensor, Tensor]


class DecoderLayer(nn.Module):
    """MLP, cross-attention, MLP, each pre-norm with a residual (the order of figure 7 of arXiv 2512.08924)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.heads = config.decoder_heads
        self.norm_before = layer_norm(width)
        self.mlp_before = Mlp(width, config.decoder_hidden)
        self.norm_query = layer_norm(width)
        self.query = Linear(width, width)
        self.key_value = Linear(config.encoder_width, 2 * width)
        self.proj = Linear(width, width)
        self.norm_after = layer_norm(width)
        self.mlp_after = Mlp(width, config.decoder_hidden)

    def keys_values(self, tokens: Tensor) -> KeysValuesOfLayer:
        """Project memory tokens (B, L, C) to keys and values, each (B, heads, L, C / heads)."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, x: Tensor, memory: Tensor | KeysValuesOfLayer, mask: Tensor | None = None) -> Tensor:
        """Update queries.

        Args:
            x: (B, N, C).
            memory: Its tokens, or what `keys_values` made of them.
            mask: bool (B, 1, 1, L), True where a token may be seen; None for all.
        """
        key, value = self.keys_values(memory) if isinstance(memory, Tensor) else memory
        x = x + self.mlp_before(self.norm_before(x))
        query = split_heads(self.query(self.norm_query(x)), self.heads)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.proj(join_heads(seen))
        return x + self.mlp_after(self.norm_after(x))


class Decoder(nn.Module):
    """Layers and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation_checkpointing = config.activation_checkpointing
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_depth))
        self.norm = layer_norm(config.decoder_width)

    def keys_values(self, tokens: Tensor) -> tuple[KeysValuesOfLayer, ...]:
        """Project memory tokens (B, L, C) for every layer."""
        return tuple(cast(DecoderLayer, layer).keys_values(tokens) for layer in self.layers)

    def forward(self, x: Tensor, memory: Tensor | Sequence[KeysValuesOfLayer], mask: Tensor | None) -> Tensor:
        """Map query tokens (B, N, C); `memory` is tokens or the kept keys and values of every layer."""
        keys = None if mask is None else mask[:, None, None]
        for number, layer in enumerate(self.layers):
            of_layer = memory if isinstance(memory, Tensor) else memory[number]
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, of_layer, keys, use_reentrant=False)
            else:
                x = layer(x, of_layer, keys)
        return self.norm(x)


class LastLinear(nn.Linear):
    """13 rows; they start near a point one unit ahead in the image's middle, which its depth can normalise."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.decoder_width, sum(OUTPUTS.values()))

    def reset_parameters(self) -> None:
        """Draw the weight, small, and set the bias."""
        nn.init.normal_(self.weight, std=_START_SPREAD * self.in_features**-0.5)
        start = {"xyz": (0.0, 0.0, 1.0), "uv": (0.5, 0.5)}
        rows = [number for name, size in OUTPUTS.items() for number in start.get(name, (0.0,) * size)]
        with torch.no_grad():
            self.bias.copy_(torch.tensor(rows))


class Head(nn.Module):
    """One linear layer to 13 numbers, in float32 whatever the decoder's arithmetic is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.confidence = config.confidence
        self.linear = LastLinear(config)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, N, C) to the outputs that `D4RT.forward` lists."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = wide_float(self.linear.weight), wide_float(self.linear.bias)
            numbers = F.linear(wide_float(x).to(weight.dtype), weight, bias)
            parts = dict(zip(OUTPUTS, numbers.split(tuple(OUTPUTS.values()), dim=-1), strict=True))
            parts["visible"] = parts["visible"].squeeze(-1)
            parts["normal"] = F.normalize(parts["normal"], dim=-1, eps=_SHORTEST_NORMAL)
            parts["confidence"] = self._positive(parts["confidence"].squeeze(-1))
        return parts

    def _positive(self, x: Tensor) -> Tensor:
        if self.confidence == "sigmoid":
            return LEAST_CONFIDENCE + (1 - LEAST_CONFIDENCE) * x.sigmoid()
        return x.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).exp()


#: Deviation of the outputs at the start.
_START_SPREAD = 0.1
#: A sigmoid's least value, so that its logarithm stays finite.
LEAST_CONFIDENCE = 1e-4
#: Bound of exp's argument.
_LARGEST_EXPONENT = 10.0
_SHORTEST_NORMAL = 1e-6
