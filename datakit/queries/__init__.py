"""Queries and their targets: which points to ask about, and the truth of each (design: paper's rules, our gaps)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clip_view import ClipView, Draw
from .patches import PATCH_SIZE, cut_patches
from .samplers import SAMPLERS, Sampler, find_sampler
from .targets import answer

__all__ = [
    "PATCH_SIZE",
    "SAMPLERS",
    "ClipView",
    "Draw",
    "Sampler",
    "answer",
    "cut_patches",
    "find_sampler",
    "sample",
]


def sample(
    clip: ClipView, rng: np.random.Generator, num_queries: int = 2048, sampler: str = "paper"
) -> dict[str, NDArray[Any]]:
    """Draw queries and answer them.

    Args:
        clip: The clip as the network sees it.
        rng: The only source of chance.
        num_queries: N.
        sampler: Name of a sampler; see `SAMPLERS`.

    Returns:
        The fields of `schemas/query.yaml`, plus kind (N,) uint8 (0 anywhere, 1 depth, 2 motion boundary).

    Raises:
        UsageError: Unknown sampler.
    """
    draw = find_sampler(sampler)(clip, rng, num_queries)
    return {
        "uv": (draw.uv_px / clip.size).astype(np.float32),
        "t_src": draw.t_src,
        "t_tgt": draw.t_tgt,
        "t_cam": draw.t_cam,
        "kind": draw.kind,
        "patch": cut_patches(clip, draw),
        **answer(clip, draw),
    }
