"""The parameters whose bias is estimated, and the faults of poses and instances that are played through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datakit import geometry as g

from .pairs import Tweak
from .raster import Float

HALF_PIXEL = "half-pixel shift of K"
HALF_PIXEL_DEPTH = "half-pixel shift of depth against colour"
HALF_PIXEL_COLOUR = "half-pixel shift of colour"
HALF_PIXEL_SOME = "half-pixel shift of K in some images"
OTHER_K = "K of another resolution"
OTHER_K_SLIGHTLY = "K of a slightly different resolution"
RAY = "ray length stored as z"
SCALE = "depth scale against poses"
POSE_TIME = "time shift of poses"
DEPTH_TIME = "time shift of depth"
MOTION_TIME = "time shift of instance poses"
IMAGE_TIME = "time shift of images"
INVERTED = "inverted poses"
AXES = "flipped camera axes"
TRANSPOSED = "transposed rotations"
QUATERNION = "quaternion order of cameras"
SWAPPED = "swapped instances"
SWAPPED_POINTS = "swapped instances of trajectories"
INSTANCE_QUATERNION = "quaternion order of instances"
BAD_POSE = "single bad pose"
CAMERA_NORMALS = "normals in the camera's frame"
NEGATED_FLOW = "flow of the wrong sign"
FLOW_TIME = "time shift of flow"
BYTE_ORDER = "bytes of depth in the other order"


@dataclass(frozen=True)
class Knob:
    """One parameter: how to turn it, how far for a derivative, and which faults it shows."""

    name: str
    unit: str
    turn: Callable[[float], Tweak]
    step: float
    sees: tuple[str, ...]


_ALL = (
    Knob("shift_u", "px", lambda a: Tweak(shift_px=(a, 0.0)), 0.25, (HALF_PIXEL, HALF_PIXEL_DEPTH)),
    Knob("shift_v", "px", lambda a: Tweak(shift_px=(0.0, a)), 0.25, (HALF_PIXEL, HALF_PIXEL_DEPTH)),
    Knob("grid_shift_u", "px", lambda a: Tweak((a, 0.0), (a, 0.0)), 0.25, (HALF_PIXEL,)),
    Knob("grid_shift_v", "px", lambda a: Tweak((0.0, a), (0.0, a)), 0.25, (HALF_PIXEL,)),
    Knob("focal", "ratio", lambda a: Tweak(log_focal=a), 0.01, (OTHER_K_SLIGHTLY,)),
    Knob("scale", "ratio", lambda a: Tweak(log_scale=a), 0.01, (SCALE,)),
    Knob("ray", "1", lambda a: Tweak(ray=a), 0.2, (RAY,)),
    Knob("pose_time", "frames", lambda a: Tweak(pose_frames=a), 0.5, (POSE_TIME,)),
    Knob("motion_time", "frames", lambda a: Tweak(motion_frames=a), 0.5, (MOTION_TIME,)),
    Knob("depth_time", "frames", lambda a: Tweak(depth_frames=a), 1.0, (DEPTH_TIME,)),
    Knob(
        "image_time",
        "frames",
        lambda a: Tweak(pose_frames=a, motion_frames=a, depth_frames=a),
        1.0,
        (IMAGE_TIME,),
    ),
)
#: The step of Lucas and Kanade over the whole image: a uniform displacement in the target.
_DRIFT = (
    Knob("drift_u", "px", lambda a: Tweak(drift_px=(a, 0.0)), 0.25, ()),
    Knob("drift_v", "px", lambda a: Tweak(drift_px=(0.0, a)), 0.25, ()),
)
KNOBS = {knob.name: knob for knob in _ALL + _DRIFT}


def knobs(*names: str, also: dict[str, tuple[str, ...]] | None = None) -> tuple[Knob, ...]:
    """Pick knobs by name; `also` adds faults that a knob shows in one check and not in others."""
    extra = also or {}
    return tuple(replace(KNOBS[n], sees=KNOBS[n].sees + extra.get(n, ())) for n in names)


def transpose_rotation(pose: Float) -> Float:
    """Transpose the rotation and keep the translation."""
    return g.rigid_from(np.swapaxes(pose[..., :3, :3], -1, -2), pose[..., :3, 3])


def flip_axes(pose: Float) -> Float:
    """Turn OpenCV camera axes into OpenGL's, or back."""
    return pose * np.array([1.0, -1.0, -1.0, 1.0])


def misread_quaternion(pose: Float) -> Float:
    """Write the rotation as w, x, y, z and read it as x, y, z, w."""
    quaternion = g.quaternion_wxyz_from_rotation(pose[..., :3, :3])
    return g.rigid_from(g.rotation_from_quaternion_xyzw(quaternion), pose[..., :3, 3])


def reread_quaternion(pose: Float) -> Float:
    """Undo `misread_quaternion`."""
    quaternion = g.quaternion_xyzw_from_rotation(pose[..., :3, :3])
    return g.rigid_from(g.rotation_from_quaternion_wxyz(quaternion), pose[..., :3, 3])


#: What would be stored if a converter made this mistake.
POSE_FAULTS: dict[str, Callable[[Float], Float]] = {
    INVERTED: g.invert_rigid,
    AXES: flip_axes,
    TRANSPOSED: transpose_rotation,
    QUATERNION: misread_quaternion,
}


def swap_instances(poses: Float) -> Float:
    """Give every instance but the background the pose of the next one, (I, 4, 4)."""
    return np.concatenate([poses[:1], np.roll(poses[1:], 1, axis=0)])


#: Likewise for instance poses; boxes carry a scale, and their faults are not played through.
INSTANCE_FAULTS: dict[str, Callable[[Float], Float]] = {
    SWAPPED: swap_instances,
    INSTANCE_QUATERNION: misread_quaternion,
}
