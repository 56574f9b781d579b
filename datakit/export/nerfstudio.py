"""Write a scene for nerfstudio: transforms.json, images, depth, a point cloud.

The format is that of docs.nerf.studio/quickstart/data_conventions: OpenGL camera axes (x right, y up, z backward),
camera-to-world poses; cx and cy have the corner of the image as origin, for its rays pass through pixel + 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datakit.errors import ConventionError
from datakit.scene import Scene, View

from .frames import (
    Exported,
    check_empty,
    colour_grid,
    depth_is_resize,
    exported_depth,
    image_bytes,
    plan_frames,
)
from .points import Cloud, static_points

#: OpenCV axes to OpenGL axes.
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
#: nerfstudio multiplies stored depth by its depth_unit_scale_factor, which is 1e-3 unless it is told otherwise.
_DEPTH_PER_UNIT = 1000.0


def export_nerfstudio(
    scene: Scene,
    out: str | Path,
    *,
    views: Sequence[str] = (),
    every: int = 1,
    depth: bool = True,
    points: int = 100_000,
) -> Exported:
    """Write a scene as OUT/transforms.json with images, depth maps (.npy, float32) and sparse_pc.ply.

    The world is not moved or scaled; nerfstudio centres and scales it itself as it is asked to.

    Args:
        scene: Open scene.
        out: Folder that is empty or does not exist.
        views: Views to write; () for all.
        every: Every so many frames.
        depth: Whether depth maps are written.
        points: Largest number of points of the cloud, which are static.

    Returns:
        What was written.

    Raises:
        UsageError: The folder is not empty, or a view does not exist.
        ConventionError: A lens, K or name cannot be expressed.
        QualityError: No frame has colour and a pose.
    """
    out = Path(out)
    plans, num_without = plan_frames(scene, views, every)
    frames: list[dict[str, Any]] = []
    for plan in plans:
        view = scene.views[plan.view]
        frames.append({"file_path": f"images/{plan.name}", **_camera(view, plan.t)})
        frames[-1]["transform_matrix"] = (view.world_from_cam[plan.t] @ _FLIP).tolist()
        frames[-1]["time"] = float(view.times[plan.t])
    check_empty(out)
    cloud = static_points(scene, plans, points)
    resampled = set()
    for plan, frame in zip(plans, frames, strict=True):
        view = scene.views[plan.view]
        _write(out / frame["file_path"], image_bytes(view, plan.t))
        z_depth = exported_depth(view, plan.t) if depth else None
        if z_depth is not None:
            frame["depth_file_path"] = f"depths/{plan.name}.npy"
            path = out / frame["depth_file_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.nan_to_num(z_depth, nan=0.0) * np.float32(_DEPTH_PER_UNIT))
            if not depth_is_resize(view, plan.t):
                resampled.add(plan.view)
    content: dict[str, Any] = {"camera_model": _model(scene, [plan.view for plan in plans])}
    if len(cloud.xyz):
        _write(out / "sparse_pc.ply", _ply(cloud))
        content["ply_file_path"] = "sparse_pc.ply"
    content["frames"] = frames
    _write(out / "transforms.json", (json.dumps(content, indent=1) + "\n").encode("utf-8"))
    return Exported(len(plans), num_without, len(cloud.xyz), tuple(sorted(resampled)))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _model(scene: Scene, views: Sequence[str]) -> str:
    """Name the camera model of a file, which holds one for all frames; a pinhole is OPENCV with zeros."""
    is_fisheye = {scene.views[name].record["camera_model"] == "opencv_fisheye" for name in views}
    if len(is_fisheye) > 1:
        raise ConventionError(
            "nerfstudio takes one camera model a file.",
            where=scene.path,
            expected="only fisheye views, or none",
            found={name: scene.views[name].record["camera_model"] for name in views},
            mend="export the views apart (--view)",
        )
    return "OPENCV_FISHEYE" if is_fisheye.pop() else "OPENCV"


def _camera(view: View, t: int) -> dict[str, Any]:
    (width, height), k = colour_grid(view, t)
    model, values = view.record["camera_model"], [float(v) for v in view.record["distortion"]]
    names: tuple[str, ...] = ("k1", "k2", "p1", "p2")
    if model == "opencv_fisheye":
        names = ("k1", "k2", "k3", "k4")
    elif model == "full_opencv":
        if any(values[5:]):
            raise ConventionError(
                "nerfstudio has no lens with rational terms.",
                where=f"view {view.name}: distortion",
                expected="k4 = k5 = k6 = 0",
                found=values,
                mend="rectify the images (e.g. colmap image_undistorter), then convert them",
            )
        names = ("k1", "k2", "p1", "p2", "k3")
    coefficients = dict(zip(names, values, strict=False))
    return {
        "w": width,
        "h": height,
        "fl_x": float(k[0, 0]),
        "fl_y": float(k[1, 1]),
        "cx": float(k[0, 2]),
        "cy": float(k[1, 2]),
        **coefficients,
    }


def _ply(cloud: Cloud) -> bytes:
    rows = np.empty(len(cloud.xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = cloud.xyz, cloud.rgb
    fields = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {c}" for c in ("red", "green", "blue")
    ]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *fields, "end_header"]
    return "\n".join([*head, ""]).encode("ascii") + rows.tobytes()
