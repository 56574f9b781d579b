"""ScanNet as it is evaluated: 90 frames, every third of the first 270 (MonST3R 574cc77, prepare_scannet.py)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError

from .clip import Benchmark, BenchmarkClip, Entry, Float, ReadOptions
from .files import images_in, inside, read_depth_png, read_matrix3, read_rgb, read_table
from .lists import choose

_STRIDE, _FRAMES = 3, 90
_PER_METRE = 1000.0
#: ScanNet's sensor runs at 30 a second.
_FPS = 30.0


def read_scannet(root: Path, options: ReadOptions) -> Benchmark:
    """List the scenes of a ScanNet evaluation folder.

    Args:
        root: Holds `<scene>/color_90`, `depth_90` and `pose_90.txt`; or `<scene>/color`, `depth` and `pose` as
            ScanNet's own exporter writes them, of which the same 90 frames are taken.
        options: Names, if only some are wanted.

    Raises:
        LayoutError: No such folder in it.
    """
    there = {path.parent.name for each in ("color_90", "color") for path in root.glob(f"*/{each}")}
    if not there:
        raise LayoutError("Not a ScanNet folder", where=root, expected="<scene>/color_90 or <scene>/color")
    names, missing = choose(options.names, there, "scannet")
    entries = tuple(
        Entry(f"scannet/{name}", "scannet", _files(root / name), partial(_load, inside(root, name), name))
        for name in names
    )
    return Benchmark("scannet", entries, missing, {"frames": f"first {_STRIDE * _FRAMES}, every {_STRIDE}rd"})


def _files(folder: Path) -> tuple[Path, ...]:
    parts = ("pose_90.txt", "depth_90", "color_90", "pose", "depth", "color")
    return tuple(folder / part for part in parts if (folder / part).exists())


def _load(folder: Path, name: str) -> BenchmarkClip:
    is_gathered = (folder / "color_90").is_dir()
    rgb = _ninety(folder, "color", is_gathered, (".jpg", ".jpeg", ".png"))
    depth = _ninety(folder, "depth", is_gathered, (".png",)) if _has(folder, "depth", is_gathered) else None
    if depth is not None and len(depth) != len(rgb):
        raise FormatError(
            "Colour and depth differ in number", where=folder, expected=len(rgb), found=len(depth)
        )
    first = read_rgb(rgb[0])
    matrices = {kind: folder / "intrinsic" / f"intrinsic_{kind}.txt" for kind in ("color", "depth")}
    k = {kind: read_matrix3(path) if path.is_file() else None for kind, path in matrices.items()}

    def tile(matrix: Float | None) -> Float | None:
        return None if matrix is None else np.tile(matrix, (len(rgb), 1, 1))

    def z_depth(t: int) -> NDArray[np.float32]:
        if depth is None:
            raise LayoutError("A scene has no depth", where=folder)
        return read_depth_png(depth[t], _PER_METRE)

    return BenchmarkClip(
        name=f"scannet/{name}",
        source="scannet",
        num_frames=len(rgb),
        size=(first.shape[1], first.shape[0]),
        rgb=lambda t: read_rgb(rgb[t]),
        times_s=np.arange(len(rgb)) * _STRIDE / _FPS,
        frame_names=tuple(path.stem for path in rgb),
        intrinsics=tile(k["color"]),
        depth_intrinsics=tile(k["depth"]),
        world_from_cam=_poses(folder, is_gathered, len(rgb)),
        z_depth=None if depth is None else z_depth,
    )


def _has(folder: Path, kind: str, is_gathered: bool) -> bool:
    return (folder / (f"{kind}_90" if is_gathered else kind)).is_dir()


def _ninety(folder: Path, kind: str, is_gathered: bool, suffixes: tuple[str, ...]) -> list[Path]:
    if is_gathered:
        return images_in(folder / f"{kind}_90", suffixes)[:_FRAMES]
    return images_in(folder / kind, suffixes)[: _STRIDE * _FRAMES : _STRIDE]


def _poses(folder: Path, is_gathered: bool, count: int) -> Float | None:
    """(T, 4, 4) camera-to-world; NaN where ScanNet's tracking was lost (it writes -inf there)."""
    if is_gathered:
        path = folder / "pose_90.txt"
        if not path.is_file():
            return None
        rows = read_table(path, 16)
        if len(rows) < count:
            raise FormatError("Poses are missing", where=path, expected=f"{count} rows", found=len(rows))
        poses = rows[:count].reshape(-1, 4, 4)
    else:
        files = images_in(folder / "pose", (".txt",))[: _STRIDE * _FRAMES : _STRIDE]
        poses = np.stack([read_table(path, 4) for path in files[:count]])
        if poses.shape != (count, 4, 4):
            raise FormatError(
                "Poses differ from colour in number", where=folder / "pose", expected=count, found=poses.shape
            )
    known = np.asarray(np.isfinite(poses).all(axis=(1, 2)))
    bad = known & ~g.is_rigid(np.where(known[:, None, None], poses, np.eye(4)), 1e-2)
    if bad.any():
        raise FormatError(
            "A pose is no rigid motion", where=folder, found=f"frame {int(np.flatnonzero(bad)[0])}"
        )
    return np.where(known[:, None, None], poses, np.nan)
