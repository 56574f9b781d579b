"""A hand-made scene whose truth fits in one's head: a square in front of a wall, seen by a sliding camera.

The wall is the plane z = 10 (id 0, static); the square is at z = 5, id 1, moving by `square_step` a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datakit.scene import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    SourceFile,
    ViewRecord,
    encode_png,
    write_scene,
)

WALL_Z, SQUARE_Z = 10.0, 5.0


def tiny_stream(
    num_frames: int = 4,
    size: tuple[int, int] = (40, 30),
    camera_step: tuple[float, float, float] = (0.25, 0.0, 0.0),
    square_step: tuple[float, float, float] = (0.0, 0.5, 0.0),
    square_half: float = 1.0,
    **changes: Any,
) -> SceneStream:
    """Build the scene; `changes` replace fields of the view record."""
    width, height = size
    focal = 40.0
    intrinsics = np.tile(
        np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), (num_frames, 1, 1)
    )
    world_from_cam = np.tile(np.eye(4), (num_frames, 1, 1))
    world_from_cam[:, :3, 3] = np.arange(num_frames)[:, None] * np.array(camera_step)
    square = np.tile(np.eye(4), (num_frames, 1, 1))
    square[:, :3, 3] = np.array([0, 0, SQUARE_Z]) + np.arange(num_frames)[:, None] * np.array(square_step)
    view = ViewRecord(
        size=size,
        times=np.arange(num_frames) / 10.0,
        frame_names=tuple(f"{t:05d}" for t in range(num_frames)),
        intrinsics=intrinsics,
        world_from_cam=world_from_cam,
        pose_is_known=np.ones(num_frames, bool),
        motion_index=np.arange(num_frames),
        layers={
            "rgb": LayerRecord(size, "png", "uint8", 3),
            "z_depth": LayerRecord(size, "array", "float32", depth_kind="rendered"),
            "instances": LayerRecord(size, "png", "uint8"),
        },
    )
    view = replace(view, **changes)
    motion = MotionRecord(
        times=view.times,
        instance_ids=np.array([0, 1], np.uint32),
        instance_names=("wall", "square"),
        instance_motion=np.array([1, 2], np.uint8),
        world_from_instance=np.stack([np.tile(np.eye(4), (num_frames, 1, 1)), square], axis=1),
    )
    record = SceneRecord(
        dataset="tiny",
        id="square",
        split="train",
        scale="metric",
        time_kind="sequence",
        licence="CC0-1.0",
        citation="none",
        source_conventions="made in the contract's own",
        views={"cam": view},
        motion=motion,
        provenance=Provenance("tiny", "1", {}, "none"),
    )

    def frames() -> Iterator[Frame]:
        v, u = np.mgrid[:height, :width] + 0.5
        for t in range(num_frames):
            centre = square[t, :3, 3] - world_from_cam[t, :3, 3]
            x, y = (u - width / 2) / focal * centre[2], (v - height / 2) / focal * centre[2]
            hit = (abs(x - centre[0]) < square_half) & (abs(y - centre[1]) < square_half)
            depth = np.where(hit, centre[2], WALL_Z - world_from_cam[t, 2, 3]).astype(np.float32)
            rgb = np.stack([u * 5, v * 5, hit * 200], axis=-1).astype(np.uint8)
            layers = {"rgb": encode_png(rgb), "z_depth": depth, "instances": encode_png(hit.astype(np.uint8))}
            yield Frame("cam", t, {name: layers[name] for name in view.layers})

    return SceneStream(record, frames(), [SourceFile("made/up", 1, "0" * 64)])


def write_tiny(path: Path, **options: Any) -> Path:
    """Write the scene and return its path."""
    write_scene(path, tiny_stream(**options))
    return path
