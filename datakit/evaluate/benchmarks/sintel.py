"""MPI Sintel: `.dpt` depth, `.cam` cameras, the final pass (sintel_io.py of its depth training package)."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError, UsageError

from .clip import Benchmark, BenchmarkClip, Entry, Float, ReadOptions
from .files import images_in, inside, read_bytes, read_rgb
from .lists import choose, evaluation_lists

_TAG = struct.pack("<f", 202021.25)
#: Sintel's frames are rendered at 24 a second.
_FPS = 24.0
_MAX_SIDE = 1 << 15


def parse_dpt(data: bytes, where: str) -> NDArray[np.float32]:
    """Read a `.dpt`: float32 tag 202021.25, int32 width and height, float32 rows, metres of z depth.

    Returns:
        (H, W) float32, NaN where the stored value is not positive and finite.

    Raises:
        FormatError: Another tag, an absurd size, or more or fewer bytes than the size says.
    """
    if data[:4] != _TAG or len(data) < 12:
        raise FormatError("Not a .dpt file", where=where, expected="tag 202021.25", found=data[:4])
    width, height = struct.unpack_from("<ii", data, 4)
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE and len(data) == 12 + 4 * width * height):
        raise FormatError(
            "A .dpt file is truncated or forged",
            where=where,
            expected=f"12 + 4 x {width} x {height} bytes",
            found=len(data),
        )
    depth = np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def parse_cam(data: bytes, where: str) -> tuple[Float, Float]:
    """Read a `.cam`: float32 tag, 9 float64 of K, 12 float64 of the 3x4 world-to-camera matrix.

    K has its principal point at half the image's size, so it is read as corner-origin.

    Returns:
        K (3, 3) and world_from_cam (4, 4).

    Raises:
        FormatError: Another tag or length, or no rigid camera.
    """
    if data[:4] != _TAG or len(data) != 4 + 21 * 8:
        raise FormatError(
            "Not a .cam file",
            where=where,
            expected="tag 202021.25 and 21 doubles",
            found=f"{len(data)} bytes",
        )
    numbers = np.frombuffer(data, "<f8", offset=4)
    matrix = numbers[:9].reshape(3, 3).copy()
    cam_from_world = np.vstack([numbers[9:].reshape(3, 4), [0, 0, 0, 1]])
    if not np.isfinite(numbers).all() or not g.is_rigid(cam_from_world, 1e-4) or not matrix[0, 0] > 0:
        raise FormatError(
            "A .cam file holds no camera", where=where, expected="a rotation, and a positive focal length"
        )
    return matrix, g.invert_rigid(cam_from_world)


def read_sintel(root: Path, options: ReadOptions) -> Benchmark:
    """List the sequences of a Sintel training folder.

    Args:
        root: The folder that holds `final`, `depth` and `camdata_left`, or the one above (with `training`).
        options: `clip_list` is "14" (default; poses, and MonST3R's and CUT3R's depth), "18" (MegaSaM) or "23".

    Raises:
        LayoutError: There is no `final` in it.
        UsageError: No such list.
    """
    base = next((each for each in (root, root / "training") if (each / "final").is_dir()), None)
    if base is None:
        raise LayoutError("Not a Sintel folder", where=root, expected="final/<sequence>/frame_0001.png")
    known = evaluation_lists()["sintel"]
    if options.clip_list is not None and options.clip_list not in known:
        raise UsageError("No such list of Sintel", expected=", ".join(known), found=options.clip_list)
    asked = options.names or known[options.clip_list or "14"]
    there = {path.name for path in (base / "final").iterdir() if path.is_dir()}
    names, missing = choose(asked, there, "sintel")
    entries = tuple(
        Entry(f"sintel/{name}", "sintel", tuple(_files(base, name)), partial(_load, base, name))
        for name in names
    )
    return Benchmark("sintel", entries, missing, {"list": options.clip_list or "14", "pass": "final"})


def _files(base: Path, name: str) -> list[Path]:
    folders = (base / "depth" / name, base / "camdata_left" / name)
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def _load(base: Path, name: str) -> BenchmarkClip:
    images = images_in(inside(base, Path("final") / name), (".png",))
    depth, cams = base / "depth" / name, base / "camdata_left" / name
    first = read_rgb(images[0])
    cameras = None
    if cams.is_dir():
        cameras = [parse_cam(read_bytes(cams / f"{i.stem}.cam"), str(cams / f"{i.stem}.cam")) for i in images]
    intrinsics = None if cameras is None else np.stack([k for k, _ in cameras])

    def z_depth(t: int) -> NDArray[np.float32]:
        path = depth / f"{images[t].stem}.dpt"
        return parse_dpt(read_bytes(path), str(path))

    return BenchmarkClip(
        name=f"sintel/{name}",
        source="sintel",
        num_frames=len(images),
        size=(first.shape[1], first.shape[0]),
        rgb=lambda t: read_rgb(images[t]),
        times_s=np.arange(len(images)) / _FPS,
        frame_names=tuple(path.stem for path in images),
        intrinsics=intrinsics,
        depth_intrinsics=intrinsics,
        world_from_cam=None if cameras is None else np.stack([pose for _, pose in cameras]),
        z_depth=z_depth if depth.is_dir() else None,
    )
