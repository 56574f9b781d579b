"""The parts that encoder and decoder share: MLP, self-attention and the encoder's block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: VideoMAE V2's (its modeling_pretrain.py builds every model with it); torch's default is 1e-5.
NORM_EPS = 1e-6
#: ImageNet's mean and deviation of RGB in [0, 1], which VideoMAE V2 normalises with (its run_class_finetuning.py,
#: imagenet_default_mean_and_std).
COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)


def layer_norm(width: int) -> nn.LayerNorm:
    """Return a LayerNorm as VideoMAE V2 has it."""
    return nn.LayerNorm(width, eps=NORM_EPS)


class Linear(nn.Linear):
    """A linear layer that starts as VideoMAE V2's do when it pre-trains: Xavier-uniform weight, no bias."""

    def reset_parameters(self) -> None:
        """Draw the weight."""
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn (B, L, C) into (B, heads, L, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Turn (B, heads, L, C / heads) into (B, L, C)."""
    return x.transpose(1, 2).flatten(2)


class Colours(nn.Module):
    """RGB, uint8 or float in [0, 1], to numbers of mean 0 and deviation 1 over ImageNet."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers: made anew in each pass they would be copied to the GPU, and the host would wait for it.
        for name in ("mean", "std"):
            self.register_buffer(name, torch.empty(3, 1, 1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the constants; they are no part of a checkpoint."""
        for buffer, values in ((self.mean, COLOUR_MEAN), (self.std, COLOUR_STD)):
            if not buffer.is_meta:
                buffer.copy_(torch.tensor(values, device="cpu").view(3, 1, 1))

    def forward(self, colours: Tensor) -> Tensor:
        """Map (..., 3, H, W) to the type of the constants."""
        scale = 255.0 if colours.dtype == torch.uint8 else 1.0
        return (colours.to(self.mean.dtype) / scale - self.mean) / self.std


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, inputs: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(width if inputs is None else inputs, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, L, C).
            mask: bool, True where a key may be seen, broadcastable to (B, heads, L, L); None for all. Without one,
                flash attention can be used.
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask)))


class EncoderBlock(nn.Module):
    """Pre-norm attention and MLP; names and order are those of VideoMAE V2's blocks, whose weights load here."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, L, C); `mask` as in `SelfAttention`."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def wide_float(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is wider."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
