"""TUM RGB-D (dynamic objects) and Bonn: images named by time, `groundtruth.txt` on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError, UsageError

from .clip import Benchmark, BenchmarkClip, Entry, Float, ReadOptions
from .files import (
    associate,
    images_in,
    inside,
    nearest,
    poses_of_tum_rows,
    read_depth_png,
    read_rgb,
    read_table,
    text_rows,
)
from .lists import choose, evaluation_lists

#: Stored steps a metre in the 16-bit PNGs of both.
_PER_METRE = 5000.0
#: Farthest that two clocks may be apart, seconds (TUM's associate.py; MonST3R's prepare_tum.py).
_TOLERANCE_S = 0.02
#: Frames 30 to 139 (MonST3R's prepare_bonn.py).
_BONN_FRAMES = slice(30, 140)
#: Every third pair, 90 of them (prepare_tum.py).
_TUM_STRIDE, _TUM_FRAMES = 3, 90
_BONN_PREFIX = "rgbd_bonn_"
#: Published calibrations with integer pixel centres; half a pixel is added to the principal point. Bonn's is on its
#: web page; TUM's are those of its file formats page, by the first letters of a sequence's name.
_BONN_K = (542.822841, 542.576870, 315.593520, 237.756098)
_TUM_K = {
    "rgbd_dataset_freiburg1": (517.3, 516.5, 318.6, 255.3),
    "rgbd_dataset_freiburg2": (520.9, 521.0, 325.1, 249.7),
    "rgbd_dataset_freiburg3": (535.4, 539.2, 320.1, 247.6),
}


@dataclass(frozen=True)
class _Paired:
    """Frames of a sequence: colour, depth (None where no depth is near), pose and the official pose."""

    rgb: list[Path]
    depth: list[Path | None]
    times_s: Float
    world_from_cam: Float
    official: Float | None


def read_bonn(root: Path, options: ReadOptions) -> Benchmark:
    """List the sequences of the Bonn RGB-D Dynamic dataset: frames 30 to 139 of each.

    Poses are those nearest in time (0.02 s). MonST3R's preparation takes rows 30 to 139 of `groundtruth.txt`, which
    runs on another clock than the images; those are kept beside as `official_world_from_cam`.

    Args:
        root: Holds `rgbd_bonn_<name>` folders.
        options: `clip_list` is "monst3r" (default: the five sequences of MonST3R and CUT3R).

    Raises:
        LayoutError: No such folder in it.
        UsageError: No such list.
    """
    known = evaluation_lists()["bonn"]
    name = options.clip_list or "monst3r"
    if name not in known:
        raise UsageError("No such list of Bonn", expected=", ".join(known), found=name)
    base = next(
        (each for each in (root, root / "rgbd_bonn_dataset") if list(each.glob(f"{_BONN_PREFIX}*"))), None
    )
    if base is None:
        raise LayoutError("Not a Bonn folder", where=root, expected=f"{_BONN_PREFIX}<name>/rgb/*.png")
    there = {path.name.removeprefix(_BONN_PREFIX) for path in base.glob(f"{_BONN_PREFIX}*") if path.is_dir()}
    names, missing = choose(options.names or known[name], there, "bonn")
    entries = []
    for clip in names:
        folder = inside(base, _BONN_PREFIX + clip)
        entries.append(Entry(f"bonn/{clip}", "bonn", _files(folder), partial(_load_bonn, folder, clip)))
    return Benchmark(
        "bonn", tuple(entries), missing, {"list": name, "frames": "30 to 139", "poses": "by time"}
    )


def read_tum(root: Path, options: ReadOptions) -> Benchmark:
    """List the sequences of TUM-dynamics: colour and pose paired by time, then every third pair, 90 of them.

    Args:
        root: Holds `rgbd_dataset_freiburg*` folders with `rgb.txt` and `groundtruth.txt`, or is one.
        options: Names, if only some are wanted.

    Raises:
        LayoutError: No such folder in it.
    """
    is_one = (root / "rgb.txt").is_file()
    folders = [root] if is_one else sorted(path.parent for path in root.glob("*/rgb.txt"))
    if not folders:
        raise LayoutError("Not a TUM folder", where=root, expected="<sequence>/rgb.txt and groundtruth.txt")
    by_name = {path.resolve().name: path for path in folders}
    names, missing = choose(options.names, by_name, "tum")
    entries = tuple(
        Entry(f"tum/{name}", "tum", _files(by_name[name]), partial(_load_tum, by_name[name], name))
        for name in names
    )
    settings = {"frames": f"every {_TUM_STRIDE}rd pair, {_TUM_FRAMES}", "poses": f"by time, {_TOLERANCE_S} s"}
    return Benchmark("tum", entries, missing, settings)


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(
        path for path in (folder / "groundtruth.txt", folder / "rgb", folder / "depth") if path.exists()
    )


def _load_bonn(folder: Path, name: str) -> BenchmarkClip:
    rgb = images_in(folder / "rgb", (".png",))[_BONN_FRAMES]
    if not rgb:
        raise FormatError("A sequence is too short", where=folder, expected="at least 31 frames")
    depth: list[Path | None] = list(images_in(folder / "depth", (".png",))[_BONN_FRAMES])
    if len(depth) != len(rgb):
        raise FormatError(
            "Colour and depth differ in number",
            where=folder,
            expected=len(rgb),
            found=f"{len(depth)} depth maps",
        )
    times = np.array([_stamp(path) for path in rgb])
    clock, poses = _ground_truth(folder)
    rows = nearest(times, clock, _TOLERANCE_S)
    by_time = np.where((rows >= 0)[:, None, None], poses[rows], np.nan)
    official = np.full_like(by_time, np.nan)
    sliced = poses[_BONN_FRAMES][: len(rgb)]
    official[: len(sliced)] = sliced
    return _clip("bonn", name, _Paired(rgb, depth, times, by_time, official), _BONN_K)


def _load_tum(folder: Path, name: str) -> BenchmarkClip:
    rgb_times, rgb_files = _listing(folder, "rgb.txt")
    clock, poses = _ground_truth(folder)
    pairs = associate(rgb_times, clock, _TOLERANCE_S)[::_TUM_STRIDE][:_TUM_FRAMES]
    if not pairs:
        raise FormatError(
            "No image has a pose near it in time", where=folder, expected=f"within {_TOLERANCE_S} s"
        )
    rows = [i for i, _ in pairs]
    times = rgb_times[rows]
    depth: list[Path | None] = [None] * len(rows)
    if (folder / "depth.txt").is_file():
        depth_times, depth_files = _listing(folder, "depth.txt")
        near = nearest(times, depth_times, _TOLERANCE_S)
        depth = [depth_files[j] if j >= 0 else None for j in near]
    k = next((k for prefix, k in _TUM_K.items() if name.startswith(prefix)), None)
    paired = _Paired([rgb_files[i] for i in rows], depth, times, poses[[j for _, j in pairs]], None)
    return _clip("tum", name, paired, k)


def _clip(source: str, name: str, paired: _Paired, k: tuple[float, ...] | None) -> BenchmarkClip:
    first = read_rgb(paired.rgb[0])
    size = (first.shape[1], first.shape[0])
    matrix = None
    if k is not None:
        fx, fy, cx, cy = k
        centre = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        matrix = np.tile(g.corner_from_centre_intrinsics(centre), (len(paired.rgb), 1, 1))

    def z_depth(t: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        path = paired.depth[t]
        if path is None:
            return np.full((size[1], size[0]), np.nan, np.float32)
        return read_depth_png(path, _PER_METRE)

    return BenchmarkClip(
        name=f"{source}/{name}",
        source=source,
        num_frames=len(paired.rgb),
        size=size,
        rgb=lambda t: read_rgb(paired.rgb[t]),
        times_s=paired.times_s,
        frame_names=tuple(path.stem for path in paired.rgb),
        intrinsics=matrix,
        depth_intrinsics=matrix,
        world_from_cam=paired.world_from_cam,
        z_depth=z_depth if any(path is not None for path in paired.depth) else None,
        official_world_from_cam=paired.official,
    )


def _ground_truth(folder: Path) -> tuple[Float, Float]:
    """(R,) seconds and (R, 4, 4) poses of `groundtruth.txt`: stamp tx ty tz qx qy qz qw."""
    table = read_table(folder / "groundtruth.txt", 8)
    return table[:, 0], poses_of_tum_rows(table[:, 1:])


def _listing(folder: Path, file: str) -> tuple[Float, list[Path]]:
    rows = text_rows(folder / file)
    try:
        return np.array([float(row[0]) for row in rows]), [inside(folder, row[1]) for row in rows]
    except (ValueError, IndexError) as error:
        raise FormatError(
            "A listing cannot be read", where=folder / file, expected="stamp and file a line", found=error
        ) from error


def _stamp(path: Path) -> float:
    try:
        return float(path.stem)
    except ValueError as error:
        raise FormatError("An image is not named by its time", where=path, expected="seconds") from error
