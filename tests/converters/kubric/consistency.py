"""Numbers that a scene must satisfy whoever made it: its layers against each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.scene import Scene

Float = NDArray[np.float64]


def surface_points(scene: Scene, t: int) -> tuple[Float, NDArray[np.uint32], NDArray[np.bool_]]:
    """World points (N, 3) of all pixels with depth, their ids (N,), and the (H, W) mask they come from."""
    view = scene.views["camera"]
    z = np.asarray(view.z_depth(t), np.float64)
    known = np.isfinite(z)
    intrinsics = view.layer_intrinsics("z_depth")[t]
    uv = g.pixel_centres(view.layer_size("z_depth"))[known]
    points_cam = g.unproject_pixels(uv, z[known], intrinsics)
    return g.transform_points(view.world_from_cam[t], points_cam), view.instances(t)[known], known


def flow_errors(scene: Scene, direction: str) -> tuple[Float, Float]:
    """Error of flow against depth, poses and rigid motion in px, all frames: background and objects."""
    view, motion = scene.views["camera"], scene.motion
    step = 1 if direction == "forward" else -1
    background, objects = [], []
    for t in range(view.num_frames):
        if not 0 <= t + step < view.num_frames:
            continue
        points, ids, known = surface_points(scene, t)
        poses = motion.world_from_instance
        moved = g.transform_points(poses[t + step, ids] @ g.invert_rigid(poses[t, ids]), points)
        intrinsics = view.layer_intrinsics(f"flow_{direction}")[t]
        uv, _ = g.project_points(
            g.transform_points(g.invert_rigid(view.world_from_cam[t + step]), moved), intrinsics
        )
        predicted = uv - g.pixel_centres(view.size)[known]
        error = np.linalg.norm(predicted - view.flow(t, direction)[known], axis=-1)
        background.append(error[ids == 0])
        objects.append(error[ids > 0])
    return np.concatenate(background), np.concatenate(objects)


def object_coordinate_errors(scene: Scene) -> Float:
    """Metres between each object pixel's point by depth and by its object coordinates."""
    view = scene.views["camera"]
    errors = []
    for t in range(view.num_frames):
        points, ids, known = surface_points(scene, t)
        box = scene.motion.world_from_box[t]
        by_coords = g.transform_points(box[ids], np.asarray(view.object_coords(t), np.float64)[known])
        errors.append(np.linalg.norm(by_coords - points, axis=-1)[ids > 0])
    return np.concatenate(errors)
