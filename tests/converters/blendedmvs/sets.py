"""Small native photo sets for the tests, what must be true of them once converted, and ways to damage them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import converters.blendedmvs as blendedmvs
from datakit import geometry as g
from datakit.scene import Scene, open_scene, write_scene
from datakit.worlds import World, random_world

PARAMS = blendedmvs.Params()
FRAMES, SIZE = 6, (64, 48)


def small_world(seed: int = 1, **changes: Any) -> World:
    return random_world(
        seed, **{"num_frames": FRAMES, "size": SIZE, "motion": "static", "lens": "general"} | changes
    )


def write_set(out: Path, form: str = "low-res", *worlds: World) -> Path:
    blendedmvs.write_native(iter(worlds or [small_world()]), out, form)
    return out


def only_scene(root: Path) -> Path:
    (folder,) = [path.parent for path in root.rglob("cams")]
    return folder


def open_set(root: Path, out: Path, params: Any = PARAMS, index: int = 0) -> Scene:
    """Convert one scene the whole way: native -> scene file -> reader."""
    ref = list(blendedmvs.scenes(root, params))[index]
    out.mkdir(parents=True, exist_ok=True)
    write_scene(out / f"{ref.id}.h5", blendedmvs.read(root, ref, params))
    return open_scene(out / f"{ref.id}.h5")


def drain(root: Path, params: Any = PARAMS) -> int:
    """Read every scene below a root to the end, without writing; return the number of frames."""
    return sum(
        1 for ref in list(blendedmvs.scenes(root, params)) for _ in blendedmvs.read(root, ref, params).frames
    )


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a text file; a change that changes nothing is a broken test."""
    old = path.read_text()
    new = change(old)
    assert new != old
    path.write_text(new)


def disagreements(world: World, scene: Scene, scale: float = 1.0) -> list[str]:
    """Name everything in a converted scene that is not as in its world."""
    view, truth = scene.views["camera"], world.views["camera"]
    size = (round(truth.size[0] * scale), round(truth.size[1] * scale))
    k_true = np.stack([g.resize_intrinsics(k, truth.size, size) for k in truth.intrinsics])
    wrong = []
    if view.size != size or np.abs(view.intrinsics - k_true).max() > 1e-6:
        wrong.append("K")
    if not np.abs(view.world_from_cam - truth.world_from_cam).max() <= 1e-6:
        wrong.append("pose")
    for t in range(world.num_frames):
        frame = world.render(t, intrinsics=k_true[t], size=size)
        z_true = frame.z_depth.astype(np.float32)
        if t == 0:  # the damaged pixels of the first photo
            z_true[0, :3] = z_true[1, 0] = np.nan
        if not np.array_equal(view.z_depth(t), z_true, equal_nan=True):
            wrong.append(f"depth of frame {t}")
        if np.abs(view.rgb(t).astype(float) - frame.rgb).mean() > 10:  # 4:2:0 and fine textures
            wrong.append(f"colour of frame {t}")
    return wrong
