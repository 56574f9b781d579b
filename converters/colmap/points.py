"""Sparse points: in which pixel each image sees which of them, and the ones kept in the motion record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.export.colmap_model import NO_POINT, ColmapImage, ColmapModel
from datakit.geometry import project_distorted

from .lens import Lens, project_source
from .params import Params

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Points that an image observes: rows of the model's points, and their camera-frame positions (K, 3)."""

    rows: NDArray[np.int64]
    points_cam: Float


def world_from_cam(image: ColmapImage) -> Float:
    """Return (4, 4) world_from_cam of an image."""
    rotation = g.rotation_from_quaternion_wxyz(image.quaternion_wxyz)
    return g.invert_rigid(g.rigid_from(rotation, image.translation))


def observations(model: ColmapModel, params: Params) -> list[Seen]:
    """List what each image observes: enough images agree, in front, and near where it was detected.

    Args:
        model: The model.
        params: `min_track_length` and `max_reprojection_error`.

    Returns:
        One entry per image of the model.
    """
    rows = [_rows(model, image) for image in model.images]
    lengths = np.zeros(len(model.points.ids), np.int64)
    for own, _ in rows:
        lengths[own] += 1
    out = []
    for image, (own, at) in zip(model.images, rows, strict=True):
        camera = model.cameras[image.camera_id]
        points_cam = g.transform_points(g.invert_rigid(world_from_cam(image)), model.points.xyz[own])
        error = np.linalg.norm(project_source(camera, points_cam) - image.uv_px[at], axis=1)
        with np.errstate(invalid="ignore"):
            good = (points_cam[:, 2] > 0) & (error <= params.max_reprojection_error)
        good &= lengths[own] >= params.min_track_length
        out.append(Seen(own[good], points_cam[good]))
    return out


def _rows(model: ColmapModel, image: ColmapImage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the points that an image observes, each once, and which of its 2D points that is."""
    used = np.flatnonzero(image.point_ids != NO_POINT)
    ids, first = np.unique(image.point_ids[used], return_index=True)
    return np.searchsorted(model.points.ids, ids), used[first]


def sparse_depth(seen: Seen, lens: Lens) -> NDArray[np.float32]:
    """Draw points into a depth image, each into the pixel that contains it; the nearest of a pixel stays.

    Returns:
        (H, W) float32 z, NaN where there is no point.
    """
    width, height = lens.size
    out = np.full((height, width), np.nan, np.float32)
    uv, z = project_distorted(seen.points_cam, lens.intrinsics, lens.model, lens.distortion)
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv < lens.size)).all(axis=1)
    order = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    col, row = uv[order].astype(np.int64).T
    out[row, col] = z[order]
    return out


def choose_tracks(model: ColmapModel, seen: Sequence[Seen], params: Params) -> NDArray[np.int64]:
    """Choose the points that are kept one by one: those seen most often, then with the least error; sorted rows."""
    counts = np.zeros(len(model.points.ids), np.int64)
    for item in seen:
        counts[item.rows] += 1
    order = np.lexsort((model.points.ids, model.points.error, -counts))
    order = order[counts[order] > 0][: params.max_points]
    return np.sort(order)
