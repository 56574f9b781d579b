"""Clip views rendered from analytic worlds, with crops and grids of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from datakit import MotionKind
from datakit.geometry import crop_intrinsics, resize_intrinsics
from datakit.queries import ClipView
from datakit.scene.records import MotionRecord
from datakit.worlds import World


def world_motion(world: World) -> MotionRecord:
    bodies = world.bodies
    poses = np.stack([world.world_from_instance_at(body.id, world.times) for body in bodies], axis=1)
    return MotionRecord(
        times=world.times,
        instance_ids=np.array([body.id for body in bodies], np.uint32),
        instance_names=tuple(body.name for body in bodies),
        instance_motion=np.array([int(body.motion) for body in bodies], np.uint8),
        world_from_instance=poses,
    )


def view_of(
    world: World,
    frames: list[int],
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    size: tuple[int, int] = (64, 64),
    **changes: Any,
) -> ClipView:
    """Render the frames; `crop` is left, top, right, bottom as shares of the image."""
    camera = world.views["camera"]
    full_w, full_h = camera.size
    left, top = crop[0] * full_w, crop[1] * full_h
    crop_size = ((crop[2] - crop[0]) * full_w, (crop[3] - crop[1]) * full_h)
    full_k = camera.intrinsics[frames]
    net_k = resize_intrinsics(crop_intrinsics(full_k, left, top), crop_size, size)
    rendered = [world.render(t) for t in frames]
    network = [world.render(t, intrinsics=k, size=size) for t, k in zip(frames, net_k, strict=True)]
    fields: dict[str, Any] = {
        "video": np.stack([f.rgb for f in network]),
        "times": world.times[frames],
        "intrinsics": net_k,
        "world_from_cam": camera.world_from_cam[frames],
        "pose_is_known": np.ones(len(frames), bool),
        "aspect_ratio": crop_size[0] / crop_size[1],
        "z_depth": np.stack([f.z_depth for f in rendered]).astype(np.float32),
        "depth_intrinsics": full_k,
        "depth_kind": "rendered",
        "instances": np.stack([f.instances for f in rendered]),
        "normals_world": np.stack([f.normals_world for f in rendered]).astype(np.float32),
        "patch_frames": np.stack([f.rgb for f in rendered]),
        "patch_intrinsics": full_k,
        "motion": world_motion(world),
        "motion_index": np.array(frames, np.int64),
        "boundary_depth": np.zeros((0, 3), np.int32),
        "boundary_motion": np.zeros((0, 3), np.int32),
    }
    return ClipView(**(fields | changes))


def edges(clip: ClipView, moving: bool) -> np.ndarray:
    """Pixels whose right neighbour is another instance, (B, 3) frame, row, column; or only at moving ones."""
    ids = clip.instances
    kind = clip.motion.instance_motion[np.searchsorted(clip.motion.instance_ids, ids)]
    differs = ids[:, :, 1:] != ids[:, :, :-1]
    if moving:
        differs &= (kind[:, :, 1:] != MotionKind.STATIC) | (kind[:, :, :-1] != MotionKind.STATIC)
    return np.argwhere(differs).astype(np.int32)
