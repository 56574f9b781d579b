"""What every export needs of a scene's frames: safe names, image bytes, depth on a resize of the colour grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, QualityError, UsageError
from datakit.scene import Scene, View, encode_png

Float = NDArray[np.float64]

_EXTENSIONS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",)}
#: Pixels by which a grid may differ from a resize of another and still be called one.
_SAME_GRID_PX = 1e-6


@dataclass(frozen=True)
class Exported:
    """What an export has done.

    Attributes:
        num_frames: Frames written.
        num_without_pose: Frames left out because their pose is unknown.
        num_points: Points written.
        resampled_depth: Views whose depth grid is no resize of the colour grid, and was sampled again by nearest pixel.
    """

    num_frames: int
    num_without_pose: int
    num_points: int
    resampled_depth: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """One frame to write: view, frame and the name of its image below the image folder."""

    view: str
    t: int
    name: str


def plan_frames(scene: Scene, views: Sequence[str] = (), every: int = 1) -> tuple[list[Plan], int]:
    """Choose the frames to write.

    Args:
        scene: Open scene.
        views: Names of views; () for all.
        every: Take every so many frames of each view.

    Returns:
        The frames with known poses, and how many were left out for want of one.

    Raises:
        UsageError: No such view, or `every` is not positive.
        ConventionError: A frame's name is no file name.
        QualityError: No frame has a pose and colour.
    """
    unknown = [name for name in views if name not in scene.views]
    if unknown or every < 1:
        raise UsageError(
            "Nothing to export", where=scene.path, expected=list(scene.views), found=(unknown, every)
        )
    plans, num_without = [], 0
    for name, view in scene.views.items():
        if (views and name not in views) or "rgb" not in view.layers:
            continue
        for t in range(0, view.num_frames, every):
            if not view.pose_is_known[t]:
                num_without += 1
                continue
            plans.append(Plan(name, t, image_name(scene, view, t)))
    if not plans:
        raise QualityError("No frame can be exported.", where=scene.path, expected="colour and known poses")
    _check_unique(scene, plans)
    return plans, num_without


def image_name(scene: Scene, view: View, t: int) -> str:
    """Name the image of a frame after its native name, below a folder per view where there are several.

    Raises:
        ConventionError: The name would leave the folder, or is none.
    """
    native = PurePosixPath(view.frame_names[t])
    text = native.as_posix()
    if native.is_absolute() or ".." in native.parts or not native.name or "\\" in text or "\0" in text:
        raise ConventionError(
            "A frame's name cannot be a file name.",
            where=f"{scene.path}, view {view.name}, frame {t}",
            found=text,
        )
    extensions = _EXTENSIONS["jpeg" if passes_through(view) == "jpeg" else "png"]
    if native.suffix.lower() not in extensions:
        text += extensions[0]
    return text if len(scene.views) == 1 else f"{view.name}/{text}"


def _check_unique(scene: Scene, plans: Sequence[Plan]) -> None:
    # Compared as a file system that ignores case would.
    names = [plan.name.lower() for plan in plans]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConventionError("Two frames have the same name.", where=scene.path, found=twice)


def passes_through(view: View) -> str | None:
    """Return "jpeg" or "png" where stored image bytes are what is exported, else None."""
    layer = view.record["layers"]["rgb"]
    is_plain = tuple(layer["channels"]) in ((), (0, 1, 2)) and not len(layer["value_scale"])
    return str(layer["codec"]) if layer["codec"] in _EXTENSIONS and is_plain else None


def image_bytes(view: View, t: int) -> bytes:
    """Return a frame's colour as an image file: the stored bytes, or a PNG where these are not an image as it is."""
    return encode_png(view.rgb(t)) if passes_through(view) is None else view.encoded("rgb", t)


def colour_grid(view: View, t: int) -> tuple[tuple[int, int], Float]:
    """Return (W, H) and K of a frame's colour.

    Raises:
        ConventionError: K has a skew, which neither COLMAP nor nerfstudio can express.
    """
    k = view.layer_intrinsics("rgb")[t]
    if k[0, 1] != 0:
        raise ConventionError(
            "K has a skew.", where=f"view {view.name}, frame {t}", expected=0, found=k[0, 1]
        )
    return view.layer_size("rgb"), k


def depth_is_resize(view: View, t: int) -> bool:
    """Tell whether a frame's depth grid is its colour grid resized."""
    size, k = colour_grid(view, t)
    return bool(
        np.abs(g.resize_intrinsics(k, size, view.depth_size) - view.depth_intrinsics[t]).max() < _SAME_GRID_PX
    )


def exported_depth(view: View, t: int) -> NDArray[np.float32] | None:
    """Return a frame's depth on a grid that is its colour grid resized; None without depth.

    Both formats take depth maps of any size as resizes of the image. A grid that is none (ScanNet's, half-size sets)
    is sampled through the homography between the two, each pixel taking the nearest stored one: no value is made up.

    Returns:
        (H, W) float32 of the stored depth's size, NaN unknown.
    """
    z_depth = view.z_depth(t)
    if z_depth is None or depth_is_resize(view, t):
        return z_depth
    size, k = colour_grid(view, t)
    width, height = view.depth_size
    grid = g.resize_intrinsics(k, size, (width, height))
    stored_from_grid = view.depth_intrinsics[t] @ np.linalg.inv(grid)
    at = np.floor(g.homography_points(stored_from_grid, g.pixel_centres((width, height))))
    inside = np.asarray(((at >= 0) & (at < (width, height))).all(axis=-1))
    col, row = np.moveaxis(np.where(inside[..., None], at, 0).astype(np.int64), -1, 0)
    return np.where(inside, z_depth[row, col], np.nan).astype(np.float32)


def check_empty(out: Path) -> None:
    """Check that a folder can be filled.

    Raises:
        UsageError: It exists and is not empty.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            "The output is not empty",
            where=out,
            expected="a folder that does not exist yet, or is empty",
            mend="delete it, or choose another",
        )
