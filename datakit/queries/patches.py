"""The 9x9 colours around a query, cut from the sharpest frame at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .clip_view import ClipView, Draw

#: Paper, section 3: local 9x9 RGB patch centred on (u, v) in frame t_src.
PATCH_SIZE = 9


def cut_patches(clip: ClipView, draw: Draw) -> NDArray[np.uint8]:
    """Cut patches with the spacing of the patch frames' own pixels; beyond the border the edge repeats.

    The patch's middle pixel is the one that contains the query.

    Returns:
        (N, 3, 9, 9) uint8, a view with the colours innermost in memory.
    """
    from .kernels import cut_squares, map_pixels

    draw = draw.checked(clip)
    uv = map_pixels(clip.patch_from_network, draw.t_src, draw.uv_px)
    frames = np.ascontiguousarray(clip.patch_frames)
    rows = frames.reshape(*frames.shape[:2], -1)
    squares = cut_squares(rows, draw.t_src, uv).reshape(-1, PATCH_SIZE, PATCH_SIZE, 3)
    return np.moveaxis(squares, -1, 1)
