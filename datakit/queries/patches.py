"""The 9x9 colours around a query, cut from the sharpest frame at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit.geometry import homography_points

from .clip_view import ClipView, Draw

#: Paper, section 3: local 9x9 RGB patch centred on (u, v) in frame t_src.
PATCH_SIZE = 9


def cut_patches(clip: ClipView, draw: Draw) -> NDArray[np.uint8]:
    """Cut patches with the spacing of the patch frames' own pixels; beyond the border the edge repeats.

    The patch's middle pixel is the one that contains the query.

    Returns:
        (N, 3, 9, 9) uint8.
    """
    count, height, width = clip.patch_frames.shape[:3]
    grid = clip.patch_intrinsics @ np.linalg.inv(clip.intrinsics)
    uv = homography_points(grid[draw.t_src], draw.uv_px)
    reach = np.arange(PATCH_SIZE) - PATCH_SIZE // 2
    cols = np.clip(np.floor(uv[:, :1]).astype(np.int64) + reach, 0, width - 1)
    rows = np.clip(np.floor(uv[:, 1:]).astype(np.int64) + reach, 0, height - 1)
    flat = (draw.t_src[:, None] * height + rows)[:, :, None] * width + cols[:, None, :]
    patches = np.take(clip.patch_frames.reshape(count * height * width, 3), flat.reshape(-1), axis=0)
    patches = patches.reshape(-1, PATCH_SIZE, PATCH_SIZE, 3)
    return np.ascontiguousarray(np.moveaxis(patches, -1, 1))
