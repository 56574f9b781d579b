"""A batch as OpenD4RT's trainer takes it.

Where that project's conventions are not ours (read from its loss, its data loaders and its query builders):

* Pixels: it counts pixel centres from 0 and divides by (W - 1), so its u in [0, 1] spans centres, not the image.
  K keeps integer centres too. Queries in the outer half pixel of the image, which it cannot express, are moved to
  its border; the shift is at most half a pixel.
* `uv_2d` lies in the image of t_tgt; ours lies in that of t_cam. It is projected anew here.
* Its own loaders disagree on `uv_2d` of occluded points. Here it is known wherever the point projects into the
  image, seen or not; `uv_when_visible_only` gives the other reading.
* `visibility` is a float; a point outside the image is not visible, an unknown one is masked.
* Masked targets are zeros, not NaN.
* A clip shorter than T has no place in its dict: the frames that are not there stay black, `camera_valid` is
  False for them, and no query points at them.
* `displacement` and `xyz_3d` are in the scene's own units, as in our batch; `meta` says which scale that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.geometry import centre_from_corner_intrinsics, invert_rigid, project_points, transform_points

Arrays = dict[str, NDArray[Any]]
Float = NDArray[np.float64]


def to_opend4rt(batch: Mapping[str, Any], *, uv_when_visible_only: bool = False) -> dict[str, Any]:
    """Turn a batch of `datakit.stream` into OpenD4RT's collated dict.

    Args:
        batch: Numpy arrays, as the stream yields them.
        uv_when_visible_only: Mask `uv_2d` where the point is not seen in t_tgt.

    Returns:
        video (B, T, 3, H, W) float32 in [0, 1]; aspect_ratio (B, 1) float32; query: u, v (B, N) float32 in [0, 1],
        t_src, t_tgt, t_cam (B, N) int64; target: xyz_3d (B, N, 3), uv_2d (B, N, 2), visibility (B, N),
        displacement, normal (B, N, 3) float32; mask: one (B, N) bool per target; camera: K (B, T, 3, 3), T_wc
        (B, T, 4, 4) float32, camera_valid (B, T) bool, and the same as `valid`; query_stats: is_hard_query (B, N);
        meta: as in the batch. `datakit.stream.torch_dataset.to_torch` makes tensors of it.
    """
    query, target, mask, camera = (batch[name] for name in ("query", "target", "mask", "camera"))
    height, width = batch["video"].shape[-2:]
    size = (width, height)
    uv = _centre_uv(query["uv"] * size, size)
    uv_tgt, has_uv = _uv_in_target_frame(query, target, mask, camera, size)
    if uv_when_visible_only:
        has_uv &= mask["visible"] & target["visible"]
    valid = camera["pose_is_known"] & batch["frame_mask"]
    known = {
        "xyz_3d": mask["xyz"],
        "uv_2d": has_uv,
        "visibility": mask["visible"],
        "displacement": mask["displacement"],
        "normal": mask["normal"],
    }
    values = {
        "xyz_3d": target["xyz"],
        "uv_2d": _centre_uv(uv_tgt, size),
        "visibility": target["visible"],
        "displacement": target["displacement"],
        "normal": target["normal"],
    }
    return {
        "video": batch["video"].astype(np.float32) / np.float32(255),
        "aspect_ratio": batch["aspect_ratio"][:, None].astype(np.float32),
        "query": {
            "u": uv[..., 0],
            "v": uv[..., 1],
            **{name: query[name] for name in ("t_src", "t_tgt", "t_cam")},
        },
        "query_stats": {"is_hard_query": query["kind"] > 0},
        "target": {name: _zero_unknown(value, known[name]) for name, value in values.items()},
        "mask": known,
        "camera": {
            "K": centre_from_corner_intrinsics(camera["intrinsics"]).astype(np.float32),
            "T_wc": camera["world_from_cam"].astype(np.float32),
            "camera_valid": valid,
            "valid": valid,
        },
        "meta": batch["meta"],
    }


def _centre_uv(uv_px: Float, size: tuple[int, int]) -> NDArray[np.float32]:
    """Corner-origin pixels to shares of the span between the first and the last pixel's centre."""
    span = np.maximum(np.array(size) - 1, 1)
    return np.clip((uv_px - 0.5) / span, 0, 1).astype(np.float32)


def _uv_in_target_frame(
    query: Arrays, target: Arrays, mask: Arrays, camera: Arrays, size: tuple[int, int]
) -> tuple[Float, NDArray[np.bool_]]:
    """Project points, given in t_cam, into t_tgt: (B, N, 2) pixels, and whether they fall into the image."""
    rows = np.arange(len(query["t_tgt"]))[:, None]
    pose = camera["world_from_cam"]
    tgt_from_cam = invert_rigid(pose[rows, query["t_tgt"]]) @ pose[rows, query["t_cam"]]
    points = transform_points(tgt_from_cam, target["xyz"])
    uv, _ = project_points(points, camera["intrinsics"][rows, query["t_tgt"]])
    with np.errstate(invalid="ignore"):
        return uv, mask["xyz"] & ((uv >= 0) & (uv <= size)).all(axis=-1)


def _zero_unknown(value: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    spread = known[..., None] if value.ndim > known.ndim else known
    return np.where(spread, value, 0).astype(np.float32)
