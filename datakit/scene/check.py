"""Check a whole scene file: header, checksums, every frame, and that values keep the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError, DatakitError

from .read import Scene, View, open_scene
from .write import scene_problems

#: 8-bit-coded normals of real sources are off by about half a step a channel.
_NORMAL_TOLERANCE = 0.02


def validate_scene(path: str | Path) -> list[DatakitError]:
    """Read everything in a scene file, one frame at a time, and list what is wrong.

    Args:
        path: Scene file.

    Returns:
        Problems in the order met; empty for a sound file.
    """
    try:
        scene = open_scene(path)
    except DatakitError as error:
        return [error]
    with scene:
        problems: list[DatakitError] = list(scene_problems(scene.record))
        if problems:
            return problems
        for view in scene.views.values():
            problems += _check_frames(scene, view)
    return problems


def _check_frames(scene: Scene, view: View) -> list[DatakitError]:
    problems: list[DatakitError] = []
    readers = {
        "rgb": view.rgb,
        "z_depth": view.z_depth,
        "instances": view.instances,
        "normals_world": view.normals,
        "flow_forward": lambda t: view.flow(t, "forward"),
        "flow_backward": lambda t: view.flow(t, "backward"),
        "object_coords": view.object_coords,
        "foreground": view.foreground,
        "depth_confidence": view.depth_confidence,
    }
    for t in range(view.num_frames):
        for name in view.layers:
            try:
                wrong = _wrong_values(name, readers[name](t), scene.motion.instance_ids)
            except DatakitError as error:
                problems.append(error)
                continue
            if wrong is not None:
                where = f"{scene.path}, view {view.name}, layer {name}, frame {t}"
                problems.append(ConventionError("Values break the contract", where=where, **wrong))
    return problems


def _wrong_values(
    name: str, value: NDArray[Any] | None, known_ids: NDArray[np.uint32]
) -> dict[str, Any] | None:
    if value is None:
        return None
    if name == "z_depth":
        bad = np.isinf(value) | (value <= 0)
        return (
            {"expected": "positive or NaN", "found": f"{int(bad.sum())} other values"} if bad.any() else None
        )
    if name == "instances":
        unknown = sorted(set(np.unique(value).tolist()) - set(known_ids.tolist()))
        return {"expected": "ids of the motion record", "found": f"ids {unknown[:8]}"} if unknown else None
    if name == "normals_world":
        norms = np.linalg.norm(value, axis=-1)
        bad = np.abs(norms - 1) > _NORMAL_TOLERANCE  # NaN compares false: unknown is fine
        # A renderer writes zeros (or the code nearest to zero) where no surface is hit.
        bad &= norms > _NORMAL_TOLERANCE
        return {"expected": "unit vectors", "found": f"{int(bad.sum())} others"} if bad.any() else None
    if name in ("foreground", "depth_confidence"):
        bad = ~((value >= 0) & (value <= 1))
        return {"expected": "0 to 1", "found": f"{int(bad.sum())} others"} if bad.any() else None
    if name.startswith("flow"):
        bad = np.isinf(value)
        return {"expected": "finite or NaN", "found": f"{int(bad.sum())} others"} if bad.any() else None
    return None
