"""Small native sequences for the tests, what must be true of them once converted, and ways to damage them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import converters.co3dv2 as co3dv2
from converters.co3dv2.write import Defects, write_jgz, write_release
from datakit.scene import Scene, open_scene, write_scene
from datakit.worlds import World, random_world

PARAMS = co3dv2.Params()
FRAMES, SIZE = 5, (48, 64)
SHAPES = {"portrait": (48, 64), "landscape": (70, 48), "square": (52, 52)}


def small_world(seed: int = 1, **changes: Any) -> World:
    return random_world(
        seed, **{"num_frames": FRAMES, "size": SIZE, "motion": "static", "lens": "general"} | changes
    )


def write_take(out: Path, form: str = "category", *worlds: World, **defects: Any) -> Path:
    given = Defects(**{k: frozenset(v) if isinstance(v, set) else v for k, v in defects.items()})
    write_release(iter(worlds or [small_world()]), out, form, given)
    return out


def category(root: Path) -> Path:
    (path,) = root.rglob("frame_annotations.jgz")
    return path.parent


def sequence(root: Path) -> Path:
    (path,) = root.rglob("images")
    return path.parent


def open_take(root: Path, out: Path, params: Any = PARAMS, index: int = 0) -> Scene:
    """Convert one sequence the whole way: native -> scene file -> reader."""
    ref = list(co3dv2.scenes(root, params))[index]
    out.mkdir(parents=True, exist_ok=True)
    write_scene(out / f"{ref.id}.h5", co3dv2.read(root, ref, params))
    return open_scene(out / f"{ref.id}.h5")


def drain(root: Path, params: Any = PARAMS) -> int:
    """Read every sequence below a root to the end, without writing; return the number of frames."""
    return sum(1 for ref in list(co3dv2.scenes(root, params)) for _ in co3dv2.read(root, ref, params).frames)


def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the items of a .jgz file in place."""
    items = json.loads(gzip.decompress(path.read_bytes()))
    change(items)
    write_jgz(path, items)


def edit_frames(root: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    edit(category(root) / "frame_annotations.jgz", change)


def half(z: np.ndarray) -> np.ndarray:
    """What is left of depth in half floats; nothing of what is unknown."""
    return z.astype(np.float16).astype(np.float32)


def disagreements(world: World, scene: Scene, frames: list[int] | None = None) -> list[str]:
    """Name everything in a converted scene that is not as in the world, whose `frames` it has."""
    view, truth = scene.views["camera"], world.views["camera"]
    frames = list(range(world.num_frames)) if frames is None else frames
    wrong = []
    if view.size != truth.size or not np.abs(view.intrinsics - truth.intrinsics[frames]).max() <= 1e-6:
        wrong.append("K")
    if not np.abs(view.world_from_cam - truth.world_from_cam[frames]).max() <= 1e-6:
        wrong.append("pose")
    if not np.array_equal(view.times, world.times[frames]):
        wrong.append("times")
    for at, t in enumerate(frames):
        frame = world.render(t)
        if not np.array_equal(view.z_depth(at), half(frame.z_depth), equal_nan=True):
            wrong.append(f"depth of frame {t}")
        if np.abs(view.rgb(at).astype(float) - frame.rgb).mean() > 10:  # 4:2:0 and fine textures
            wrong.append(f"colour of frame {t}")
        mask = view.foreground(at)
        if mask is None or ((mask > 0.5) != (frame.instances > 0)).mean() > 0.05:
            wrong.append(f"foreground of frame {t}")
    return wrong
