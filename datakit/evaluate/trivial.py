"""Answers that know nothing of the picture: what a model has to beat, measured by the same code.

Both are given what a model is not: the true intrinsics, and `static_world` also the true cameras and the clip's
true median depth. To be better than these is the least that learning can mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.geometry import camera_rays, invert_rigid, transform_points

Float = NDArray[np.float64]
Predictor = Callable[[Mapping[str, Any]], Float]


def constant_depth(batch: Mapping[str, Any]) -> Float:
    """Everything is a wall at depth 1 before a camera that stands still.

    Args:
        batch: Numpy arrays as `datakit.stream` yields: query.uv (B, N, 2) and query.t_src (B, N), camera.intrinsics
            (B, T, 3, 3) of the network's square, video (B, T, 3, S, S).

    Returns:
        (B, N, 3) float64 points, up to scale.
    """
    return _on_walls(batch, np.ones(len(batch["video"])))


def static_world(batch: Mapping[str, Any]) -> Float:
    """Everything is a wall at the clip's true median depth that never moves, seen by the true cameras.

    Args:
        batch: As of `constant_depth`, with camera.world_from_cam (B, T, 4, 4), target.xyz, mask.xyz, query.t_cam.

    Returns:
        (B, N, 3) float64 points in the cameras of t_cam, world units.
    """
    walls = np.array(
        [_median_depth(xyz, known) for xyz, known in zip(_xyz(batch), _known(batch), strict=True)]
    )
    points_src = _on_walls(batch, walls)
    pose = np.asarray(batch["camera"]["world_from_cam"], np.float64)
    clip = np.arange(len(pose))[:, None]
    world = transform_points(pose[clip, batch["query"]["t_src"]], points_src)
    return transform_points(invert_rigid(pose[clip, batch["query"]["t_cam"]]), world)


TRIVIAL: dict[str, Predictor] = {"constant_depth": constant_depth, "static_world": static_world}


def _on_walls(batch: Mapping[str, Any], depths: Float) -> Float:
    """(B, N, 3) points at a depth of each clip (B,) behind the queries' pixels, in the cameras of t_src."""
    size = batch["video"].shape[-1]
    clip = np.arange(len(depths))[:, None]
    intrinsics = np.asarray(batch["camera"]["intrinsics"], np.float64)[clip, batch["query"]["t_src"]]
    rays = camera_rays(np.asarray(batch["query"]["uv"], np.float64) * size, intrinsics)
    return rays * depths[:, None, None]


def _median_depth(xyz: NDArray[Any], known: NDArray[np.bool_]) -> float:
    ahead = known & (xyz[..., 2] > 0)
    return float(np.median(xyz[ahead, 2])) if ahead.any() else 1.0


def _xyz(batch: Mapping[str, Any]) -> NDArray[Any]:
    return np.asarray(batch["target"]["xyz"])


def _known(batch: Mapping[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(batch["mask"]["xyz"])
