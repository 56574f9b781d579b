"""A scene as a recording for the rerun viewer; needs the extra `rerun`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from datakit.errors import UsageError
from datakit.motion import Visibility
from datakit.scene import Scene, View

from .cloud import CloudOptions, frame_points
from .files import PARTIAL_SUFFIX

_TIMELINE = "time"


def check_rerun() -> Any:
    """Import rerun.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise UsageError(
            "A recording for rerun needs rerun-sdk", mend="pip install 'datakit[rerun]'"
        ) from error
    return rerun


def write_rerun(path: Path, scene: Scene, view: View, options: CloudOptions) -> None:
    """Write cameras, pictures, depth, points and visible tracks over time as one .rrd file.

    Args:
        path: File to write; it appears when it is whole.
        scene: Open scene.
        view: The view to log.
        options: Which points.

    Raises:
        UsageError: rerun-sdk is not installed.
    """
    rr = check_rerun()
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    recording = rr.RecordingStream("datakit", recording_id=scene.id)
    recording.save(str(partial))
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    for part in frame_points(scene, view, options):
        t = part.t
        recording.set_time(_TIMELINE, duration=float(view.times[t]))
        recording.log("world/points", rr.Points3D(part.xyz, colors=part.rgb))
        pose, k = view.world_from_cam[t], view.intrinsics[t]
        recording.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        recording.log("world/camera/image", rr.Pinhole(image_from_camera=k, resolution=list(view.size)))
        recording.log("world/camera/image/rgb", rr.Image(view.rgb(t)).compress(jpeg_quality=85))
        depth_k = view.depth_intrinsics[t]
        depth = rr.Pinhole(image_from_camera=depth_k, resolution=list(view.depth_size))
        recording.log("world/camera/depth", depth)
        recording.log("world/camera/depth/z", rr.DepthImage(view.z_depth(t), meter=1.0))
        _log_tracks(rr, recording, scene, view, t)
    recording.flush()
    del recording  # closes the file
    os.replace(partial, path)


def _log_tracks(rr: Any, recording: Any, scene: Scene, view: View, t: int) -> None:
    motion, sample = scene.motion, int(view.motion_index[t])
    if motion.points_world is None or sample < 0:
        return
    state = motion.point_state.get(view.name)
    at = motion.points_world[:, sample]
    seen = np.isfinite(at).all(axis=1)
    if state is not None:
        seen &= state[:, t] == Visibility.VISIBLE
    recording.log("world/tracks", rr.Points3D(at[seen], class_ids=np.flatnonzero(seen) % 65536))
