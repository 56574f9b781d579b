"""What a rolling shutter does to pixels: the camera moves while a picture is read out line by line.

Depth of such a picture is along the optical axis of the frame's own pose; its pixels are where each line saw things.
Ten metres a second and a readout of 44 ms put both up to 0.2 m apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datakit.scene import View

from .raster import Float

#: Part of the way to the neighbouring frames over which the camera's velocity is taken.
_NEAR = 0.25


@dataclass(frozen=True)
class Shutter:
    """A frame's readout, and the camera's motion during it, which is taken as steady.

    Attributes:
        axis: 0 where columns are read out one by one, 1 where rows are.
        delays: (L,) s from the frame's own time to each line's.
        velocity: (3,) of the camera, world units a second, along the axes of the frame's own pose.
        turn: (3,) rad/s about the same axes.
    """

    axis: int
    delays: Float
    velocity: Float
    turn: Float

    def delay(self, line_px: Float) -> Float:
        """Give the time (N,) s at which positions along the axis (N,) px are exposed, after the frame's own."""
        return np.interp(line_px, np.arange(len(self.delays)) + 0.5, self.delays)

    def leave(self, delay: Float, rays_cam: Float, z: Float) -> Float:
        """Go along rays (N, 3) of the camera as it was after delays (N,), to z (N,) in the frame's own pose."""
        rays = self._turned(rays_cam, delay)
        start = delay[:, None] * self.velocity
        return start + ((z - start[:, 2]) / rays[:, 2])[:, None] * rays

    def meet(self, delay: Float, points_cam: Float) -> Float:
        """Move points (N, 3) from the frame's own pose into the camera as it was after delays (N,)."""
        return self._turned(points_cam - delay[:, None] * self.velocity, -delay)

    def _turned(self, vectors: Float, delay: Float) -> Float:
        """Turn to second order: some hundredths of a rad leave 1e-6."""
        x, y, z = self.turn
        matrix = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        once = vectors @ matrix.T
        return vectors + delay[:, None] * once + (delay**2 / 2)[:, None] * (once @ matrix.T)


def shutter_of(view: View, index: int, pose_at: Callable[[float], Float]) -> Shutter | None:
    """Describe a frame's rolling shutter.

    Args:
        view: With at least two frames in the order of time, for there to be a motion.
        index: The frame.
        pose_at: Gives world_from_cam (4, 4) a part of a frame later.

    Returns:
        None for a global shutter, or where nothing is said of the lines' times or of the camera's motion.
    """
    from .frames import rotation_vector

    lines, axis = view.record.get("shutter_times"), view.record["shutter_axis"]
    if axis == "global" or lines is None or view.num_frames < 2:
        return None
    times, own = view.times, pose_at(0.0)
    before, after = max(index - 1, 0), min(index + 1, view.num_frames - 1)
    # At an end of the video the step on the other side stands for both, as in `pose_at`.
    steps = [times[after] - times[index] or times[index] - times[before]]
    steps.append(times[index] - times[before] or steps[0])
    span = _NEAR * sum(steps)
    first, last = pose_at(-_NEAR), pose_at(_NEAR)
    return Shutter(
        axis=0 if axis == "column" else 1,
        delays=np.asarray(lines[index], np.float64) - times[index],
        velocity=own[:3, :3].T @ (last[:3, 3] - first[:3, 3]) / span,
        turn=rotation_vector(first[:3, :3].T @ last[:3, :3]) / span,
    )
