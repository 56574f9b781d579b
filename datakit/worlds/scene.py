"""Write a world straight to a scene file, without a native format in between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datakit.motion import MotionKind
from datakit.scene import encode_png, write_scene
from datakit.scene.records import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    ViewRecord,
)

from .shapes import Float
from .world import World, WorldInstance, WorldView

_VERSION = "1"
#: Trajectories written for each deforming instance.
_POINTS_PER_INSTANCE = 1024


def write_world_scene(world: World, path: str | Path) -> None:
    """Write a world as a scene file with all layers and its exact motion.

    Args:
        world: The world.
        path: Where to.

    Raises:
        ConventionError: The world breaks the contract.
    """
    write_scene(path, world_scene_stream(world))


def world_scene_stream(world: World) -> SceneStream:
    """Turn a world into a scene stream; frames are rendered as they are asked for.

    Args:
        world: The world.

    Returns:
        The stream, with dataset "world", metric scale and no source files.
    """
    params = {
        "name": world.name,
        "seed": world.seed,
        "num_frames": world.num_frames,
        "fps": world.fps,
        "views": {name: list(view.size) for name, view in world.views.items()},
    }
    record = SceneRecord(
        dataset="world",
        id=world.name,
        split="none",
        scale="metric",
        time_kind="sequence",
        licence="CC0-1.0",
        citation="Synthetic world of datakit.",
        source_conventions="Made in the contract's own conventions; nothing was converted.",
        views={name: _view_record(world, view) for name, view in world.views.items()},
        motion=world_motion(world),
        provenance=Provenance(
            converter="world",
            converter_version=_VERSION,
            params=params,
            fingerprint=hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest(),
        ),
        world_up=(0.0, 0.0, 1.0),
    )
    return SceneStream(record=record, frames=_frames(world), sources=[])


def world_motion(world: World, points_per_instance: int = _POINTS_PER_INSTANCE) -> MotionRecord:
    """Describe how the points of a world move, with trajectories on deforming instances.

    Args:
        world: The world.
        points_per_instance: About how many trajectories each deforming instance gets.

    Returns:
        The record, on the clock of the frames.
    """
    bodies = world.bodies
    deforming = [body for body in bodies if body.motion == MotionKind.POINTS]
    points = [world.trajectories(body.id, points_per_instance) for body in deforming]
    points_world = np.concatenate(points) if points else None
    return MotionRecord(
        times=world.times,
        instance_ids=np.arange(len(bodies), dtype=np.uint32),
        instance_names=tuple(body.name for body in bodies),
        instance_motion=np.array([body.motion for body in bodies], np.uint8),
        world_from_instance=np.stack([_pose_rows(body) for body in bodies], axis=1),
        world_from_box=np.stack([_box_rows(body) for body in bodies], axis=1),
        points_world=points_world,
        point_instance=np.repeat(
            np.array([body.id for body in deforming], np.uint32), [len(p) for p in points]
        )
        if points
        else None,
        point_state={name: _states(world, name, points_world) for name in world.views}
        if points_world is not None
        else {},
    )


def _pose_rows(body: WorldInstance) -> Float:
    pose = body.world_from_instance
    if body.motion == MotionKind.STATIC:
        return np.broadcast_to(np.eye(4), pose.shape)
    # The pose of a deforming thing is that of its carrier; its points do not follow it.
    return np.full_like(pose, np.nan) if body.motion == MotionKind.POINTS else pose


def _box_rows(body: WorldInstance) -> Float:
    pose = body.world_from_instance
    if body.id == 0 or body.motion == MotionKind.POINTS:
        return np.full_like(pose, np.nan)
    instance_from_box = np.diag([*(body.box_hi - body.box_lo), 1.0])
    instance_from_box[:3, 3] = body.box_lo
    return pose @ instance_from_box


def _states(world: World, view: str, points_world: Float) -> NDArray[np.uint8]:
    num_points, num_frames = points_world.shape[:2]
    state, _, _ = world.see(view, points_world.reshape(-1, 3), np.tile(world.times, num_points))
    return state.reshape(num_points, num_frames)


def _view_record(world: World, view: WorldView) -> ViewRecord:
    num = world.num_frames

    def array(channels: int, dtype: str = "float32", depth_kind: str | None = None) -> LayerRecord:
        return LayerRecord(view.size, "array", dtype, num_channels=channels, depth_kind=depth_kind)

    return ViewRecord(
        size=view.size,
        times=world.times,
        frame_names=tuple(f"{t:05d}" for t in range(num)),
        intrinsics=view.intrinsics,
        world_from_cam=view.world_from_cam,
        pose_is_known=np.ones(num, bool),
        motion_index=np.arange(num),
        layers={
            "rgb": LayerRecord(view.size, "png", "uint8", num_channels=3),
            "z_depth": array(1, depth_kind="rendered"),
            "instances": array(1, dtype="uint32"),
            "normals_world": array(3),
            "flow_forward": array(2),
            "flow_backward": array(2),
            "object_coords": array(3),
        },
    )


def _frames(world: World) -> Iterator[Frame]:
    for t in range(world.num_frames):
        for name in world.views:
            frame = world.render(t, name)
            yield Frame(
                view=name,
                index=t,
                layers={
                    "rgb": encode_png(frame.rgb),
                    "z_depth": frame.z_depth.astype(np.float32),
                    "instances": frame.instances,
                    "normals_world": frame.normals_world.astype(np.float32),
                    "flow_forward": frame.flow_forward.astype(np.float32),
                    "flow_backward": frame.flow_backward.astype(np.float32),
                    "object_coords": frame.object_coords.astype(np.float32),
                },
            )
