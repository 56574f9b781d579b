"""Small COLMAP workspaces for the tests, and what must be true of them once converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import converters.colmap as colmap
from datakit import geometry as g
from datakit.export.colmap_model import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints, write_model
from datakit.scene import Scene, encode_png, open_scene, write_scene
from datakit.worlds import World, random_world

PARAMS = colmap.Params()
FRAMES, SIZE = 5, (64, 48)


def small_world(seed: int = 1, **changes: Any) -> World:
    return random_world(seed, **{"num_frames": FRAMES, "size": SIZE, "motion": "static"} | changes)


def write_workspace(out: Path, form: str = "sparse", world: World | None = None) -> Path:
    colmap.write_native(iter([world or small_world()]), out, form)
    return out


def open_workspace(root: Path, out: Path, params: Any = PARAMS, index: int = 0) -> Scene:
    ref = list(colmap.scenes(root, params))[index]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{ref.id}.h5"
    write_scene(path, colmap.read(root, ref, params))
    return open_scene(path)


def drain(root: Path, params: Any = PARAMS) -> int:
    return sum(1 for ref in list(colmap.scenes(root, params)) for _ in colmap.read(root, ref, params).frames)


def disagreements(world: World, scene: Scene, form: str) -> list[str]:
    """Name everything in a converted scene that is not as in its world."""
    wrong = []
    for name, truth in world.views.items():
        view = scene.views["camera"] if len(world.views) == 1 else _view_of(scene, name)
        if view is None or view.num_frames != world.num_frames:
            return [f"frames of view {name}"]
        if np.abs(view.world_from_cam - truth.world_from_cam).max() > 1e-9:
            wrong.append("pose")
        if np.abs(view.intrinsics - truth.intrinsics).max() > 1e-9:
            wrong.append("K")
        for t in range(world.num_frames):
            wrong += _wrong_pixels(world, name, view, t, form)
    points = scene.motion.points_world
    if points is None or len(points) < 10:
        wrong.append("points")
    return wrong


def _view_of(scene: Scene, name: str) -> Any:
    return next((v for v in scene.views.values() if v.frame_names[0].startswith(f"{name}/")), None)


def _wrong_pixels(world: World, name: str, view: Any, t: int, form: str) -> list[str]:
    from converters.colmap.write import LENS, render_rgb

    lens = LENS if form == "opencv" else ("pinhole", ())
    wrong = []
    if not np.array_equal(view.rgb(t), render_rgb(world, name, t, lens)):
        wrong.append(f"colour of frame {t}")
    if (view.record["camera_model"], tuple(view.record["distortion"])) != lens:
        wrong.append("lens")
    z = view.z_depth(t)
    known = np.isfinite(z)
    k, size = view.depth_intrinsics[t], view.depth_size
    if form == "dense":
        truth = world.render(t, name, intrinsics=k, size=size).z_depth
        if (known != np.isfinite(truth)).any() or np.nanmax(np.abs(z - truth)) > 1e-5:
            wrong.append(f"depth of frame {t}")
        return wrong
    # A point lies somewhere in its pixel: its z is within what the surface spans there.
    rows, cols = np.nonzero(known)
    rays = [
        g.unproject_distorted(np.stack([cols + du, rows + dv], 1), np.ones(len(rows)), k, *lens)
        for du in (0.0, 0.5, 1.0)
        for dv in (0.0, 0.5, 1.0)
    ]
    pose = view.world_from_cam[t]
    spans = np.stack([world.cast(pose[:3, 3], ray @ pose[:3, :3].T, t / world.fps).scale for ray in rays])
    near, far = spans.min(axis=0) * (1 - 1e-3), spans.max(axis=0) * (1 + 1e-3)
    own = z[rows, cols]
    if len(rows) < 20 or ((own < near) | (own > far)).mean() > 0.1:
        wrong.append(f"depth of frame {t}")
    return wrong


# --- models made by hand --------------------------------------------------------------------------------------------


CAMERA = ColmapCamera(3, "PINHOLE", (16, 12), (15.0, 14.0, 8.0, 6.0))


def hand_points(count: int = 4) -> ColmapPoints:
    xyz = np.stack([np.linspace(-1, 1, count), np.zeros(count), np.full(count, 4.0)], axis=1)
    return ColmapPoints(5 + 2 * np.arange(count), xyz, np.full((count, 3), 9, np.uint8), np.full(count, 0.5))


def hand_image(id: int = 1, name: str = "a.png", **changes: Any) -> ColmapImage:
    """Looks along z from a little to the side of the world's origin, and sees all points where they are."""
    points = changes.pop("points", hand_points())
    camera = changes.pop("camera", CAMERA)
    shift = np.array([0.1 * id, 0.0, 0.0])
    fx, fy, cx, cy = camera.params[:4]
    cam = points.xyz + shift
    uv = np.stack([fx * cam[:, 0] / cam[:, 2] + cx, fy * cam[:, 1] / cam[:, 2] + cy], axis=1)
    image = ColmapImage(id, camera.id, name, np.array([1.0, 0, 0, 0]), shift, uv, points.ids)
    return replace(image, **changes)


def write_hand(
    root: Path,
    images: list[ColmapImage] | None = None,
    cameras: list[ColmapCamera] | None = None,
    points: ColmapPoints | None = None,
    as_text: bool = False,
    folder: str = "sparse/0",
) -> Path:
    """Write a workspace of flat grey images at root/shed."""
    images = [hand_image(k, f"{k}.png") for k in (1, 2, 3)] if images is None else images
    cameras = [CAMERA] if cameras is None else cameras
    shed = root / "shed"
    sizes = {camera.id: camera.size for camera in cameras}
    for image in images:
        path = shed / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = sizes.get(image.camera_id, (16, 12))
        path.write_bytes(encode_png(np.full((height, width, 3), 50, np.uint8)))
    model = ColmapModel(
        {camera.id: camera for camera in cameras}, images, hand_points() if points is None else points
    )
    write_model(shed / folder, model, as_text)
    return shed
