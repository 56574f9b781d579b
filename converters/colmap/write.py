"""Writer of COLMAP workspaces, from the layout at https://colmap.github.io/format.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.export.colmap_model import (
    COLMAP_OF,
    NO_POINT,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
    write_depth_map,
    write_model,
)
from datakit.motion import MotionKind, Visibility
from datakit.scene import encode_png
from datakit.worlds import World

Float = NDArray[np.float64]

#: The coefficients of the form "opencv": a mild wide-angle lens.
LENS = ("opencv", (-0.08, 0.02, 0.001, -0.0015))
_PINHOLE: tuple[str, tuple[float, ...]] = ("pinhole", ())
FORMS = ("sparse", "sparse-text", "dense", "opencv")
_POINTS_PER_IMAGE = 40
#: Ids as COLMAP leaves them: neither from 0 nor without gaps.
_FIRST_IMAGE, _IMAGE_STEP, _FIRST_POINT, _POINT_STEP = 11, 2, 7, 3


@dataclass(frozen=True)
class _Place:
    """A frame of a view of a world, and the name of its image."""

    view: str
    t: int
    name: str


def write_workspaces(worlds: Iterable[World], out: Path, form: str) -> None:
    """Write one workspace per world, named after it: images, sparse/0, and stereo/depth_maps in the form "dense".

    Raises:
        ConventionError: A world moves.
    """
    for world in worlds:
        write_workspace(world, out / world.name, form)


def write_workspace(world: World, folder: Path, form: str, depth_scale: float = 1.0) -> None:
    """Write a world as a COLMAP workspace.

    Args:
        world: Nothing in it moves. Several views become several cameras with images in folders of their own.
        folder: The workspace.
        form: One of `FORMS`.
        depth_scale: Size of dense depth maps over that of the images, as patch match's max_image_size makes it.
    """
    _check_expressible(world)
    lens = LENS if form == "opencv" else _PINHOLE
    places = list(_places(world))
    for place in places:
        path = folder / "images" / place.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(render_rgb(world, place.view, place.t, lens)))
        if form == "dense":
            view = world.views[place.view]
            width, height = (max(1, round(side * depth_scale)) for side in view.size)
            k = g.resize_intrinsics(view.intrinsics[place.t], view.size, (width, height))
            z_depth = world.render(place.t, place.view, intrinsics=k, size=(width, height)).z_depth
            write_depth_map(
                folder / "stereo" / "depth_maps" / f"{place.name}.geometric.bin", z_depth.astype(np.float32)
            )
    sparse = folder / "sparse" / ("" if form == "dense" else "0")
    write_model(sparse, _model(world, places, lens), as_text=form == "sparse-text")


def _places(world: World) -> Iterator[_Place]:
    for view in world.views:
        for t in range(world.num_frames):
            yield _Place(view, t, f"{t:05d}.png" if len(world.views) == 1 else f"{view}/{t:05d}.png")


def _check_expressible(world: World) -> None:
    moving = [item.id for item in world.instances if item.motion != MotionKind.STATIC]
    if moving:
        raise ConventionError(
            "A COLMAP model can only hold worlds in which nothing moves.",
            where=world.name,
            expected="MotionKind STATIC",
            found=f"instances {moving}",
            mend="--motion static",
        )


def render_rgb(world: World, view: str, t: int, lens: tuple[str, tuple[float, ...]]) -> NDArray[np.uint8]:
    """Render colour through a lens, by casting the ray of every distorted pixel."""
    camera = world.views[view]
    model, coefficients = lens
    if model == "pinhole":
        return world.render(t, view).rgb
    k, pose, time = camera.intrinsics[t], camera.world_from_cam[t], t / world.fps
    centres = g.pixel_centres(camera.size).reshape(-1, 2)
    rays = g.unproject_distorted(centres, np.ones(len(centres)), k, model, coefficients)
    hits = world.cast(pose[:3, 3], rays @ pose[:3, :3].T, time)
    # Steps of one pixel, as on a surface that faces the camera: they only choose how sharp the texture is.
    z = np.where(hits.instance >= 0, hits.scale, 1.0)[:, None]
    du, dv = (z / k[axis, axis] * pose[:3, axis] for axis in (0, 1))
    rgb = np.round(255 * world.colours(hits, du, dv, time)).astype(np.uint8)
    return rgb.reshape(camera.size[1], camera.size[0], 3)


def _model(world: World, places: list[_Place], lens: tuple[str, tuple[float, ...]]) -> ColmapModel:
    cameras: dict[tuple[object, ...], ColmapCamera] = {}
    xyz, rgb = _surface_points(world, places)
    images, counts = [], np.zeros(len(xyz), np.int64)
    for number, place in enumerate(places):
        view = world.views[place.view]
        k = view.intrinsics[place.t]
        params = (k[0, 0], k[1, 1], k[0, 2], k[1, 2], *lens[1])
        key = (place.view, params)
        if key not in cameras:
            cameras[key] = ColmapCamera(len(cameras) + 1, COLMAP_OF[lens[0]], view.size, params)
        rows, uv = _observed(world, place, xyz, lens)
        counts[rows] += 1
        cam_from_world = g.invert_rigid(view.world_from_cam[place.t])
        images.append(
            ColmapImage(
                _FIRST_IMAGE + _IMAGE_STEP * number,
                cameras[key].id,
                place.name,
                g.quaternion_wxyz_from_rotation(cam_from_world[:3, :3]),
                cam_from_world[:3, 3],
                # The first feature of every image belongs to no point, as most do.
                np.concatenate([[[1.5, 2.5]], uv]),
                np.concatenate([[NO_POINT], _FIRST_POINT + _POINT_STEP * rows]),
            )
        )
    seen = np.flatnonzero(counts)
    points = ColmapPoints(_FIRST_POINT + _POINT_STEP * seen, xyz[seen], rgb[seen], np.zeros(len(seen)))
    # COLMAP writes images in the order of a hash table.
    return ColmapModel({camera.id: camera for camera in cameras.values()}, images[::-1], points)


def _surface_points(world: World, places: list[_Place]) -> tuple[Float, NDArray[np.uint8]]:
    """Draw points on what the images see, (N, 3) and their colours."""
    rng = np.random.default_rng(world.seed)
    points, colours = [], []
    for place in places:
        view = world.views[place.view]
        uv = rng.uniform(0, view.size, (_POINTS_PER_IMAGE, 2))
        hits = world.cast_pixels(place.view, uv, place.t / world.fps)
        known = hits.instance >= 0
        pose = view.world_from_cam[place.t]
        cam = g.camera_rays(uv, view.intrinsics[place.t]) * hits.scale[:, None]
        points.append(g.transform_points(pose, cam)[known])
        image = world.render(place.t, place.view).rgb
        colours.append(image[uv[:, 1].astype(int), uv[:, 0].astype(int)][known])
    return np.concatenate(points), np.concatenate(colours)


def _observed(
    world: World, place: _Place, xyz: Float, lens: tuple[str, tuple[float, ...]]
) -> tuple[NDArray[np.int64], Float]:
    """Rows of the points that an image sees, and where."""
    view = world.views[place.view]
    state, _, _ = world.see(place.view, xyz, place.t / world.fps)
    cam = g.transform_points(g.invert_rigid(view.world_from_cam[place.t]), xyz)
    uv, _ = g.project_distorted(cam, view.intrinsics[place.t], *lens)
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv < view.size)).all(axis=1)
    rows = np.flatnonzero((state == Visibility.VISIBLE) & inside)
    return rows, uv[rows]
