"""Small native scans for the tests, what must be true of them once converted, and ways to damage them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

import converters.scannet as scannet
from converters.scannet.write_sens import SensFrame, SensHead, write_sens
from datakit import geometry as g
from datakit.scene import Scene, open_scene, write_scene
from datakit.worlds import World, random_world

PARAMS = scannet.Params()
FRAMES, SIZE = 5, (65, 48)
#: What each form's numbers are good to: pose entries (metres and cosines), K in pixels.
PRECISION = {
    "sens": (1e-6, 1e-6),
    "export": (1e-6, 1e-6),
    "frames-25k": (1e-6, 1e-6),
    "export-cpp": (1e-5, 1e-3),  # six significant digits: the tool's own loss
}


def small_world(seed: int = 1, **changes: Any) -> World:
    return random_world(seed, **{"num_frames": FRAMES, "size": SIZE, "motion": "static"} | changes)


def write_scan(out: Path, form: str = "sens", world: World | None = None) -> Path:
    scannet.write_native(iter([world or small_world()]), out, form)
    return out


def open_scan(root: Path, out: Path, params: Any = PARAMS, index: int = 0) -> Scene:
    """Convert one scan the whole way: native -> scene file -> reader."""
    ref = list(scannet.scenes(root, params))[index]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{ref.id}.h5"
    write_scene(path, scannet.read(root, ref, params))
    return open_scene(path)


def drain(root: Path, params: Any = PARAMS) -> int:
    """Read every scan below a root to the end, without writing; return the number of frames."""
    return sum(
        1 for ref in list(scannet.scenes(root, params)) for _ in scannet.read(root, ref, params).frames
    )


def sens_file(root: Path) -> Path:
    return next(iter(sorted(root.rglob("*.sens"))))


def stored_k(k: np.ndarray, form: str) -> np.ndarray:
    """What is left of a corner-origin K in a form: .sens holds single precision of the centre-origin one."""
    if form != "sens":
        return k
    return g.corner_from_centre_intrinsics(g.centre_from_corner_intrinsics(k).astype(np.float32))


def disagreements(world: World, scene: Scene, form: str) -> list[str]:
    """Name everything in a converted scene that is not as in its world."""
    view, truth = scene.views["camera"], world.views["camera"]
    wrong = []
    pose_tolerance, k_tolerance = PRECISION[form]
    if np.abs(view.world_from_cam - truth.world_from_cam).max() > pose_tolerance:
        wrong.append("pose")
    if np.abs(view.intrinsics - stored_k(truth.intrinsics, form)).max() > k_tolerance:
        wrong.append("K of colour")
    from converters.scannet.write_common import depth_grid, depth_intrinsics

    size = depth_grid(truth.size)
    depth_k = depth_intrinsics(truth.intrinsics[0], truth.size, size)
    if view.depth_size != size or np.abs(view.depth_intrinsics - stored_k(depth_k, form)).max() > k_tolerance:
        wrong.append("K of depth")
    for t in range(world.num_frames):
        z_true = world.render(t, intrinsics=depth_k, size=size).z_depth
        z = view.z_depth(t)
        if z is None or (np.isnan(z) != np.isnan(z_true)).any() or np.nanmax(np.abs(z - z_true)) > 5.1e-4:
            wrong.append(f"depth of frame {t}")
        if np.abs(view.rgb(t).astype(float) - world.render(t).rgb).mean() > 10:  # 4:2:0 and fine textures
            wrong.append(f"colour of frame {t}")
    return wrong


# --- .sens files made by hand -------------------------------------------------------------------------------------


def jpeg(size: tuple[int, int] = (16, 12), seed: int = 0) -> bytes:
    rgb = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(rgb, quality=80, colorsubsampling="420")


def png(size: tuple[int, int] = (16, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def k4(focal_x: float, focal_y: float, centre_x: float, centre_y: float) -> np.ndarray:
    return np.array([[focal_x, 0, centre_x, 0], [0, focal_y, centre_y, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


HEAD = SensHead(k4(16, 16, 7.5, 5.5), k4(8, 8, 3.5, 2.5), (16, 12), (8, 6))


def codes(value: int = 1500, size: tuple[int, int] = (8, 6)) -> bytes:
    return np.full(size[::-1], value, "<u2").tobytes()


def hand_frames(num: int = 3, **changes: Any) -> list[SensFrame]:
    made = []
    for t in range(num):
        pose = np.eye(4)
        pose[0, 3] = 0.1 * t
        made.append(SensFrame(jpeg(seed=t), zlib.compress(codes(1500 + t)), pose, 1000 + 33_333 * t))
    return [replace(frame, **changes) for frame in made]


def write_hand(
    root: Path,
    frames: Sequence[SensFrame] | None = None,
    num_imu: int = 1,
    name: str = "scene0001_00",
    **head: Any,
) -> Path:
    folder = root / "scans" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.sens"
    write_sens(path, replace(HEAD, **head), hand_frames() if frames is None else frames, num_imu)
    return path
