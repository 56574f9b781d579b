"""Write a scene as a COLMAP workspace: images, sparse model, dense depth maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datakit import geometry as g
from datakit.scene import Scene

from .colmap_model import (
    COLMAP_OF,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
    write_depth_map,
    write_model,
)
from .frames import (
    Exported,
    Plan,
    check_empty,
    colour_grid,
    depth_is_resize,
    exported_depth,
    image_bytes,
    plan_frames,
)
from .points import Cloud, static_points


def export_colmap(
    scene: Scene,
    out: str | Path,
    *,
    views: Sequence[str] = (),
    every: int = 1,
    depth: bool = True,
    points: int = 20_000,
    as_text: bool = False,
) -> Exported:
    """Write a scene as COLMAP's dense workspace: OUT/images, OUT/sparse, OUT/stereo/depth_maps.

    Poses, K and lens coefficients are exact: COLMAP's conventions are the contract's, but for the direction of poses.
    Only what is static becomes points. The scene's unit is kept.

    Args:
        scene: Open scene.
        out: Folder that is empty or does not exist.
        views: Views to write; () for all.
        every: Every so many frames.
        depth: Whether depth maps are written.
        points: Largest number of 3D points.
        as_text: The model as text.

    Returns:
        What was written.

    Raises:
        UsageError: The folder is not empty, or a view does not exist.
        ConventionError: A frame's name or K cannot be expressed.
        QualityError: No frame has colour and a pose.
    """
    out = Path(out)
    plans, num_without = plan_frames(scene, views, every)
    for plan in plans:
        colour_grid(scene.views[plan.view], plan.t)
    check_empty(out)
    cloud = static_points(scene, plans, points)
    resampled = set()
    for plan in plans:
        view = scene.views[plan.view]
        path = out / "images" / plan.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(view, plan.t))
        z_depth = exported_depth(view, plan.t) if depth else None
        if z_depth is not None:
            write_depth_map(out / "stereo" / "depth_maps" / f"{plan.name}.geometric.bin", z_depth)
            if not depth_is_resize(view, plan.t):
                resampled.add(plan.view)
    write_model(out / "sparse", _model(scene, plans, cloud), as_text)
    return Exported(len(plans), num_without, len(cloud.xyz), tuple(sorted(resampled)))


def _model(scene: Scene, plans: Sequence[Plan], cloud: Cloud) -> ColmapModel:
    cameras: dict[tuple[object, ...], ColmapCamera] = {}
    images = []
    for number, (plan, (rows, uv)) in enumerate(zip(plans, cloud.seen, strict=True), start=1):
        view = scene.views[plan.view]
        size, k = colour_grid(view, plan.t)
        model = COLMAP_OF[view.record["camera_model"]]
        params = tuple(float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2], *view.record["distortion"]))
        camera = cameras.setdefault(
            (plan.view, size, params), ColmapCamera(len(cameras) + 1, model, size, params)
        )
        cam_from_world = g.invert_rigid(view.world_from_cam[plan.t])
        images.append(
            ColmapImage(
                number,
                camera.id,
                plan.name,
                g.quaternion_wxyz_from_rotation(cam_from_world[:3, :3]),
                cam_from_world[:3, 3],
                uv,
                rows + 1,
            )
        )
    ids = np.arange(1, len(cloud.xyz) + 1)
    # Observations are the points' own projections.
    points = ColmapPoints(ids, cloud.xyz, cloud.rgb, np.zeros(len(ids)))
    return ColmapModel({camera.id: camera for camera in cameras.values()}, images, points)
