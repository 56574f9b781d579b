"""The 9x9 colours around a query, cut from the sharpest frame at hand."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from datakit.geometry import homography_points

from .clip_view import ClipView, Draw

#: Paper, section 3: local 9x9 RGB patch centred on (u, v) in frame t_src.
PATCH_SIZE = 9


def cut_patches(clip: ClipView, draw: Draw) -> NDArray[np.uint8]:
    """Cut patches with the spacing of the patch frames' own pixels; beyond the border the edge repeats.

    The patch's middle pixel is the one that contains the query.

    Returns:
        (N, 3, 9, 9) uint8, a view with the colours innermost in memory.
    """
    count, height, width = clip.patch_frames.shape[:3]
    uv = homography_points(clip.patch_from_network[draw.t_src], draw.uv_px)
    half = PATCH_SIZE // 2
    left = np.floor(uv[:, 0]).astype(np.int64) - half
    top = np.floor(uv[:, 1]).astype(np.int64) - half
    reach = np.arange(PATCH_SIZE)
    rows = draw.t_src[:, None] * height + np.clip(top[:, None] + reach, 0, height - 1)
    # A row of a patch is 27 bytes in one piece, unless it crosses the border.
    row_bytes = PATCH_SIZE * 3
    pieces = sliding_window_view(clip.patch_frames.reshape(-1), row_bytes)
    whole_left = np.clip(left, 0, width - PATCH_SIZE)
    patches = pieces[(rows * width + whole_left[:, None]) * 3].reshape(-1, PATCH_SIZE, PATCH_SIZE, 3)
    crossing = np.flatnonzero(left != whole_left)
    cols = np.clip(left[crossing, None] + reach, 0, width - 1)
    flat = rows[crossing, :, None] * width + cols[:, None, :]
    patches[crossing] = clip.patch_frames.reshape(count * height * width, 3)[flat]
    return np.moveaxis(patches, -1, 1)
