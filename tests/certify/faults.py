"""Good scenes from analytic worlds, and the mistakes converters make, as edits of such scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.certify import knobs as k
from datakit.motion import MotionKind
from datakit.scene import decode_image, encode_png, write_scene
from datakit.scene.records import Frame, SceneRecord, SceneStream, ViewRecord
from datakit.worlds import World, random_world, world_scene_stream

Layers = dict[str, Any]

#: What BlendedMVS, CO3Dv2 and ScanNet give; with instances where something moves, or nothing says what moves.
BARE = ("rgb", "z_depth")


@dataclass(frozen=True)
class Clip:
    """A whole scene in memory, one view, with one frame more at the end of `layers` than the record counts."""

    world: World
    record: SceneRecord
    layers: list[Layers]

    @property
    def view(self) -> ViewRecord:
        return self.record.views["camera"]

    @property
    def num_frames(self) -> int:
        return len(self.view.times)

    def with_view(self, **changes: Any) -> Clip:
        return replace(self, record=replace(self.record, views={"camera": replace(self.view, **changes)}))

    def with_motion(self, **changes: Any) -> Clip:
        return replace(self, record=replace(self.record, motion=replace(self.record.motion, **changes)))

    def with_layer(self, name: str, edit: Callable[[int, Any], Any]) -> Clip:
        layers = [{**frame, name: edit(t, frame[name])} for t, frame in enumerate(self.layers)]
        return replace(self, layers=layers)

    def late(self, name: str) -> Clip:
        """Give every frame the layer of the next one."""
        layers = [{**a, name: b[name]} for a, b in zip(self.layers, self.layers[1:], strict=False)]
        return replace(self, layers=[*layers, self.layers[-1]])

    def keep(self, names: Iterable[str]) -> Clip:
        """Drop all other layers."""
        names = tuple(names)
        records = {name: record for name, record in self.view.layers.items() if name in names}
        layers = [{name: frame[name] for name in names} for frame in self.layers]
        return replace(self.with_view(layers=records), layers=layers)

    def write(self, path: Path) -> Path:
        frames = (Frame("camera", t, self.layers[t]) for t in range(self.num_frames))
        write_scene(path, SceneStream(self.record, frames, []))
        return path


def make_clip(
    seed: int, motion: str, camera: str, num_frames: int = 16, size: tuple[int, int] = (112, 96)
) -> Clip:
    """Draw a world, render one frame more than is told, and keep everything in memory."""
    world = random_world(seed, num_frames=num_frames + 1, size=size, motion=motion, camera=camera)
    stream = world_scene_stream(world)
    layers = [dict(frame.layers) for frame in stream.frames]
    record = stream.record
    view, moving = record.views["camera"], record.motion
    n = num_frames
    view = replace(
        view,
        times=view.times[:n],
        frame_names=view.frame_names[:n],
        intrinsics=view.intrinsics[:n],
        world_from_cam=view.world_from_cam[:n],
        pose_is_known=view.pose_is_known[:n],
        motion_index=view.motion_index[:n],
    )
    moving = replace(
        moving,
        times=moving.times[:n],
        world_from_instance=moving.world_from_instance[:n],
        world_from_box=moving.world_from_box[:n],
        points_world=None if moving.points_world is None else moving.points_world[:, :n],
        point_state={name: state[:, :n] for name, state in moving.point_state.items()},
    )
    return Clip(world, replace(record, views={"camera": view}, motion=moving), layers)


def bare(clip: Clip) -> Clip:
    """Keep colour, depth and poses; instances too where something moves, for motion means nothing without them."""
    is_still = (clip.record.motion.instance_motion == MotionKind.STATIC).all()
    clip = clip.keep(BARE if is_still else (*BARE, "instances"))
    clip = clip.with_motion(world_from_box=None)
    return _background_only(clip) if is_still else clip


def _background_only(clip: Clip) -> Clip:
    motion = clip.record.motion
    return clip.with_motion(
        instance_ids=motion.instance_ids[:1],
        instance_names=motion.instance_names[:1],
        instance_motion=motion.instance_motion[:1],
        world_from_instance=motion.world_from_instance[:, :1],
    )


# --- the mistakes ---------------------------------------------------------------------------------------------------


def _map_poses(edit: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Clip], Clip]:
    return lambda clip: clip.with_view(world_from_cam=edit(clip.view.world_from_cam))


def _shifted(intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    out = intrinsics.copy()
    out[:, :2, 2] += 0.5
    return out


def half_pixel_k(clip: Clip) -> Clip:
    return clip.with_view(intrinsics=_shifted(clip.view.intrinsics))


def half_pixel_k_of_some(clip: Clip) -> Clip:
    """Shift every second image's K; over pairs one way and the other cancel."""
    intrinsics = clip.view.intrinsics.copy()
    intrinsics[1::2] = _shifted(intrinsics[1::2])
    return clip.with_view(intrinsics=intrinsics)


def half_pixel_depth(clip: Clip) -> Clip:
    layers = dict(clip.view.layers)
    layers["z_depth"] = replace(layers["z_depth"], intrinsics=_shifted(clip.view.intrinsics))
    return clip.with_view(layers=layers)


def half_pixel_colour(clip: Clip) -> Clip:
    def move(t: int, data: bytes) -> bytes:
        image = decode_image(data, "")
        by = np.float32([[1, 0, 0.5], [0, 1, 0.5]])
        return encode_png(
            cv2.warpAffine(
                image, by, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
        )

    return clip.with_layer("rgb", move)


def ray_as_z(clip: Clip) -> Clip:
    intrinsics = clip.world.views["camera"].intrinsics
    return clip.with_layer("z_depth", lambda t, z: g.ray_distance_from_z(z, intrinsics[t]).astype(np.float32))


def depth_scaled(clip: Clip) -> Clip:
    return clip.with_layer("z_depth", lambda t, z: z * np.float32(1.05))


def late_poses(clip: Clip) -> Clip:
    times = clip.view.times + 1 / clip.world.fps
    return clip.with_view(world_from_cam=clip.world.camera_at("camera", times)[0])


def late_depth(clip: Clip) -> Clip:
    return clip.late("z_depth")


def late_images(clip: Clip) -> Clip:
    return clip.late("rgb")


def late_motion(clip: Clip) -> Clip:
    """Give instances and trajectories the poses of the next sample; the last sample is dropped everywhere."""
    n, motion = clip.num_frames - 1, clip.record.motion
    view = clip.view
    clip = clip.with_view(
        times=view.times[:n],
        frame_names=view.frame_names[:n],
        intrinsics=view.intrinsics[:n],
        world_from_cam=view.world_from_cam[:n],
        pose_is_known=view.pose_is_known[:n],
        motion_index=view.motion_index[:n],
    )
    return clip.with_motion(
        times=motion.times[:n],
        world_from_instance=motion.world_from_instance[1:],
        world_from_box=None if motion.world_from_box is None else motion.world_from_box[1:],
        points_world=None if motion.points_world is None else motion.points_world[:, 1:],
        point_state={name: state[:, 1:] for name, state in motion.point_state.items()},
    )


def k_doubled(clip: Clip) -> Clip:
    return clip.with_view(intrinsics=clip.view.intrinsics * np.array([2.0, 2.0, 1.0])[:, None])


def k_halved(clip: Clip) -> Clip:
    return clip.with_view(intrinsics=clip.view.intrinsics * np.array([0.5, 0.5, 1.0])[:, None])


def k_slightly_larger(clip: Clip) -> Clip:
    """Use a K for images 6 % larger, as a forgotten rounding of the size to a multiple of 16 does."""
    return clip.with_view(intrinsics=clip.view.intrinsics * np.array([1.06, 1.06, 1.0])[:, None])


def swapped_instances(clip: Clip) -> Clip:
    return _swapped(clip, (MotionKind.RIGID, MotionKind.STATIC))


def swapped_trajectories(clip: Clip) -> Clip:
    return _swapped(clip, (MotionKind.POINTS,))


def _swapped(clip: Clip, kinds: tuple[MotionKind, ...]) -> Clip:
    """Swap the ids of the two largest instances of the first kind of motion that has two."""
    motion = clip.record.motion
    seen = np.bincount(
        np.concatenate([frame["instances"].ravel() for frame in clip.layers]),
        minlength=len(motion.instance_ids),
    )
    seen[0] = 0
    for kind in kinds:
        rows = np.flatnonzero((motion.instance_motion == kind) & (seen > 0))
        if len(rows) >= 2:
            break
    first, second = sorted(rows[np.argsort(-seen[rows], kind="stable")][:2])
    order = np.arange(len(motion.instance_ids))
    order[[first, second]] = second, first
    ids = motion.point_instance
    if ids is not None:
        low, high = motion.instance_ids[first], motion.instance_ids[second]
        ids = np.where(ids == low, high, np.where(ids == high, low, ids))
    return clip.with_motion(
        instance_motion=motion.instance_motion[order],
        world_from_instance=motion.world_from_instance[:, order],
        world_from_box=None if motion.world_from_box is None else motion.world_from_box[:, order],
        point_instance=ids,
    )


def instance_quaternions(clip: Clip) -> Clip:
    motion = clip.record.motion
    poses, boxes = motion.world_from_instance.copy(), motion.world_from_box
    rigid = motion.instance_motion == MotionKind.RIGID
    poses[:, rigid] = k.misread_quaternion(poses[:, rigid])
    if boxes is not None:
        boxes = boxes.copy()
        boxes[:, rigid] = (
            poses[:, rigid] @ g.invert_rigid(motion.world_from_instance[:, rigid]) @ boxes[:, rigid]
        )
    return clip.with_motion(world_from_instance=poses, world_from_box=boxes)


def one_bad_pose(clip: Clip) -> Clip:
    poses = clip.view.world_from_cam.copy()
    poses[7, :3, 3] += 0.6
    return clip.with_view(world_from_cam=poses)


def camera_normals(clip: Clip) -> Clip:
    """Store normals in the camera's frame."""
    poses = clip.world.views["camera"].world_from_cam
    return clip.with_layer(
        "normals_world", lambda t, n: (n.astype(np.float64) @ poses[t, :3, :3]).astype(np.float32)
    )


def backward_flow_negated(clip: Clip) -> Clip:
    return clip.with_layer("flow_backward", lambda t, flow: -flow)


def forward_flow_one_late(clip: Clip) -> Clip:
    return clip.late("flow_forward")


@dataclass(frozen=True)
class Fault:
    """A mistake: how it is made, what certificates call it, and which checks are meant to see it."""

    make: Callable[[Clip], Clip]
    label: str
    meant: tuple[str, ...]
    needs: str = ""


GEOMETRY = ("depth_reprojection", "rigid_residual", "track_depth", "normals", "object_coords", "flow")
FAULTS: dict[str, Fault] = {
    "half_pixel_k": Fault(half_pixel_k, k.HALF_PIXEL, GEOMETRY),
    "half_pixel_k_of_some": Fault(half_pixel_k_of_some, k.HALF_PIXEL_SOME, ("photometric",)),
    "half_pixel_depth": Fault(half_pixel_depth, k.HALF_PIXEL_DEPTH, (*GEOMETRY, "edge_alignment")),
    "half_pixel_colour": Fault(half_pixel_colour, k.HALF_PIXEL_COLOUR, ("edge_alignment",)),
    "ray_as_z": Fault(ray_as_z, k.RAY, GEOMETRY),
    "depth_scaled": Fault(depth_scaled, k.SCALE, GEOMETRY),
    "inverted_poses": Fault(_map_poses(g.invert_rigid), k.INVERTED, GEOMETRY),
    "flipped_axes": Fault(_map_poses(k.flip_axes), k.AXES, GEOMETRY),
    "transposed_rotations": Fault(_map_poses(k.transpose_rotation), k.TRANSPOSED, GEOMETRY),
    "quaternion_order": Fault(_map_poses(k.misread_quaternion), k.QUATERNION, GEOMETRY),
    "late_poses": Fault(late_poses, k.POSE_TIME, GEOMETRY),
    "late_depth": Fault(late_depth, k.DEPTH_TIME, (*GEOMETRY, "edge_alignment")),
    "late_images": Fault(late_images, k.IMAGE_TIME, ("photometric", "edge_alignment")),
    "k_doubled": Fault(k_doubled, k.OTHER_K, ("intrinsics",)),
    "k_halved": Fault(k_halved, k.OTHER_K, ("intrinsics",)),
    "k_slightly_larger": Fault(k_slightly_larger, k.OTHER_K_SLIGHTLY, GEOMETRY),
    "one_bad_pose": Fault(one_bad_pose, k.BAD_POSE, ("pose",)),
    "late_motion": Fault(late_motion, k.MOTION_TIME, GEOMETRY, "motion"),
    "swapped_instances": Fault(swapped_instances, k.SWAPPED, GEOMETRY, "two rigid or boxes"),
    "swapped_trajectories": Fault(swapped_trajectories, k.SWAPPED_POINTS, ("track_depth",), "two points"),
    "instance_quaternions": Fault(instance_quaternions, k.INSTANCE_QUATERNION, GEOMETRY, "rigid"),
    "camera_normals": Fault(camera_normals, k.CAMERA_NORMALS, ("normals",), "normals_world"),
    "backward_flow_negated": Fault(backward_flow_negated, k.NEGATED_FLOW, ("flow",), "flow_backward"),
    "forward_flow_one_late": Fault(forward_flow_one_late, k.FLOW_TIME, ("flow",), "flow_forward"),
}


def can_exist(fault: Fault, clip: Clip) -> bool:
    """Say whether a scene has what the fault spoils."""
    kinds = clip.record.motion.instance_motion
    if fault.needs == "motion":
        return bool((kinds != MotionKind.STATIC).any())
    if fault.needs == "two rigid or boxes":
        return bool((kinds == MotionKind.RIGID).sum() >= 2 or "object_coords" in clip.view.layers)
    if fault.needs == "two points":
        return bool((kinds == MotionKind.POINTS).sum() >= 2)
    if fault.needs == "rigid":
        return bool((kinds == MotionKind.RIGID).any())
    return not fault.needs or fault.needs in clip.view.layers
