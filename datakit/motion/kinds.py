"""The states and kinds that motion speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class MotionKind(IntEnum):
    """How the points of an instance move (`schemas/motion.yaml`, instance_motion)."""

    UNKNOWN = 0
    STATIC = 1
    RIGID = 2
    POINTS = 3


class Visibility(IntEnum):
    """State of a point in a frame. Unknown is never occluded: losses and metrics see only known states."""

    UNKNOWN = 0
    VISIBLE = 1
    OCCLUDED = 2
    OUTSIDE = 3


class Reason(IntEnum):
    """Why a point has its state."""

    SEEN = 0
    BEHIND_SURFACE = 1
    BEHIND_OTHER_INSTANCE = 2
    BEHIND_CAMERA = 3
    OUT_OF_IMAGE = 4
    SOURCE_OUT_OF_IMAGE = 5
    SOURCE_NO_DEPTH = 6
    SOURCE_NO_POSE = 7
    TARGET_NO_POSE = 8
    TARGET_NO_DEPTH = 9
    TARGET_CONTRADICTS = 10
    MOTION_UNKNOWN = 11
    NO_TRAJECTORY_NEAR = 12
    NO_OBJECT_COORDS = 13
    TARGET_DEPTH_EDGE = 14


@dataclass(frozen=True)
class Tracks:
    """N points, each at one target time.

    Attributes:
        points_world: (N, 3) float64 at the target time, world frame; NaN unknown.
        state: (N,) uint8 `Visibility` in the target frame.
        reason: (N,) uint8 `Reason` of that state.
        uv_px: (N, 2) float64 on the target view's colour grid; NaN unknown or behind the camera.
        z_depth: (N,) float64 along the target camera's axis; NaN unknown.
    """

    points_world: NDArray[np.float64]
    state: NDArray[np.uint8]
    reason: NDArray[np.uint8]
    uv_px: NDArray[np.float64]
    z_depth: NDArray[np.float64]
