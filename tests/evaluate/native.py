"""Benchmarks' own files made of analytic worlds, so that readers are held against closed-form truth."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from datakit import geometry as g
from datakit.motion import Visibility
from datakit.scene import encode_png
from datakit.worlds import World, random_world

SINTEL_TAG = struct.pack("<f", 202021.25)


def small_world(seed: int = 3, num_frames: int = 5, **changes) -> World:
    options = {"size": (64, 48), "motion": "rigid"} | changes
    return random_world(seed, num_frames=num_frames, **options)


def jpeg(rgb, quality: int = 95) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def stored_depth(depth, per_metre: float):
    """What a 16-bit PNG keeps of depth: 0 where unknown or out of range."""
    steps = np.round(np.nan_to_num(depth) * per_metre)
    return np.where(steps < 1 << 16, steps, 0).astype(np.uint16)


def known_again(depth, per_metre: float):
    """What a reader must make of it."""
    return np.where(stored_depth(depth, per_metre) > 0, depth, np.nan)


def png16(path: Path, depth, per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(stored_depth(depth, per_metre)))


def png(path: Path, rgb) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(rgb))


def dpt(depth) -> bytes:
    height, width = depth.shape
    return (
        SINTEL_TAG
        + struct.pack("<ii", width, height)
        + np.nan_to_num(depth, posinf=np.inf).astype("<f4").tobytes()
    )


def cam(intrinsics, world_from_cam) -> bytes:
    cam_from_world = g.invert_rigid(world_from_cam)[:3]
    return SINTEL_TAG + intrinsics.astype("<f8").tobytes() + cam_from_world.astype("<f8").tobytes()


def write_sintel(root: Path, world: World, name: str) -> None:
    view = world.views["camera"]
    for t in range(world.num_frames):
        frame = world.render(t)
        stem = f"frame_{t + 1:04d}"
        png(root / "final" / name / f"{stem}.png", frame.rgb)
        for kind, data in (
            ("depth", dpt(frame.z_depth)),
            ("camdata_left", cam(view.intrinsics[t], view.world_from_cam[t])),
        ):
            path = root / kind / name / f"{stem}.{'dpt' if kind == 'depth' else 'cam'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def write_kitti(root: Path, world: World, drive: str, first: int = 5) -> None:
    base = root / "depth_selection" / "val_selection_cropped"
    for t in range(world.num_frames):
        frame = world.render(t)
        name = f"{t + first:010d}.png"
        png16(base / "groundtruth_depth_gathered" / f"{drive}_02" / name, frame.z_depth, 256.0)
        png(base / "image_gathered" / f"{drive}_02" / name, frame.rgb)


def tum_line(stamp: float, pose) -> str:
    quat = g.quaternion_xyzw_from_rotation(pose[:3, :3])
    return " ".join([f"{stamp:.4f}", *(repr(float(v)) for v in (*pose[:3, 3], *quat))])


def write_bonn(root: Path, world: World, name: str, clock_hz: float = 100.0, early_s: float = 0.5) -> Path:
    """Images at the world's frames; poses on a faster clock that starts earlier, as a motion capture's does."""
    folder = root / f"rgbd_bonn_{name}"
    for t, time in enumerate(world.times + 100.0):
        frame = world.render(t)
        png(folder / "rgb" / f"{time:.5f}.png", frame.rgb)
        png16(folder / "depth" / f"{time + 0.001:.5f}.png", frame.z_depth, 5000.0)
    ticks = np.arange(-early_s, world.times[-1] + 0.05, 1 / clock_hz)
    poses, _ = world.camera_at("camera", ticks)
    lines = [
        "# timestamp tx ty tz qx qy qz qw",
        *(tum_line(100 + s, p) for s, p in zip(ticks, poses, strict=True)),
    ]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_tum(root: Path, world: World, name: str, clock_hz: float = 100.0) -> Path:
    folder = root / name
    rgb, depth = ["# color images", "# file", "# timestamp filename"], ["# depth"]
    for t, time in enumerate(world.times + 100.0):
        frame = world.render(t)
        png(folder / "rgb" / f"{time:.6f}.png", frame.rgb)
        png16(folder / "depth" / f"{time + 0.004:.6f}.png", frame.z_depth, 5000.0)
        rgb.append(f"{time:.6f} rgb/{time:.6f}.png")
        depth.append(f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png")
    ticks = np.arange(0, world.times[-1] + 0.05, 1 / clock_hz)
    poses, _ = world.camera_at("camera", ticks)
    (folder / "rgb.txt").write_text("\n".join(rgb) + "\n")
    (folder / "depth.txt").write_text("\n".join(depth) + "\n")
    lines = [tum_line(100 + s, p) for s, p in zip(ticks, poses, strict=True)]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_scannet(root: Path, world: World, name: str, lost: int | None = None) -> Path:
    folder, view = root / name, world.views["camera"]
    rows = []
    for t in range(world.num_frames):
        frame = world.render(t)
        path = folder / "color_90" / f"frame_{t:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(frame.rgb))
        png16(folder / "depth_90" / f"frame_{t:04d}.png", frame.z_depth, 1000.0)
        pose = np.full((4, 4), -np.inf) if t == lost else view.world_from_cam[t]
        rows.append(" ".join(repr(float(value)) for value in pose.ravel()))
    (folder / "pose_90.txt").write_text("\n".join(rows) + "\n")
    matrix = np.eye(4)
    matrix[:3, :3] = g.centre_from_corner_intrinsics(view.intrinsics[0])
    for kind in ("color", "depth"):
        path = folder / "intrinsic" / f"intrinsic_{kind}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(" ".join(map(repr, row)) for row in matrix.tolist()) + "\n")
    return folder


def world_tracks(world: World, num: int = 24, seed: int = 0):
    """Queries (N, 3), points in each camera (N, T, 3), pixels (N, T, 2), visible (N, T); all exact."""
    view, rng = world.views["camera"], np.random.default_rng(seed)
    count, steps = num * 4, world.num_frames
    uv = rng.random((count, 2)) * view.size
    src = rng.integers(0, steps, count)
    points, state = world.track(
        "camera", np.repeat(uv, steps, 0), np.repeat(src, steps), np.tile(np.arange(steps), count)
    )
    points, state = points.reshape(count, steps, 3), state.reshape(count, steps)
    keep = np.flatnonzero(
        (state != Visibility.UNKNOWN).all(1) & (state[np.arange(count), src] == Visibility.VISIBLE)
    )
    keep = keep[:num]
    xyz = g.transform_points(g.invert_rigid(view.world_from_cam), points[keep])
    pixels, _ = g.project_points(xyz, view.intrinsics)
    queries = np.concatenate([uv[keep], src[keep, None]], axis=1)
    return queries, xyz, pixels, state[keep] == Visibility.VISIBLE


def write_tapvid3d(path: Path, world: World, with_poses: bool = True, **changes) -> None:
    """Write what the official generators write: object array of JPEGs, tracks (T, N, 3)."""
    view = world.views["camera"]
    queries, xyz, _, visible = world_tracks(world)
    k = view.intrinsics[0]
    images = np.empty(world.num_frames, object)
    images[:] = [jpeg(world.render(t).rgb) for t in range(world.num_frames)]
    arrays = {
        "images_jpeg_bytes": images,
        "queries_xyt": queries,
        "tracks_XYZ": xyz.transpose(1, 0, 2),
        "visibility": visible.T,
        "fx_fy_cx_cy": np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]),
    }
    if with_poses:
        arrays["extrinsics_w2c"] = g.invert_rigid(view.world_from_cam)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, allow_pickle=True, **kept)


def tapvid2d_video(world: World, as_jpeg: bool = False) -> dict:
    _, _, pixels, visible = world_tracks(world)
    rgb = [world.render(t).rgb for t in range(world.num_frames)]
    return {
        "points": (pixels / world.views["camera"].size).astype(np.float32),
        "occluded": ~visible,
        "video": [jpeg(image) for image in rgb] if as_jpeg else np.stack(rgb),
    }


def write_tapvid2d(path: Path, videos, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(videos, protocol=protocol))
