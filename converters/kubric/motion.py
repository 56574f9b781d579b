"""Kubric's instances as a motion record: background static, every instance rigid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import field, numbers
from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.scene.records import MotionRecord

from .camera import poses

Float = NDArray[np.float64]

_STATIC, _RIGID = 1, 2
#: An 8-bit index image has this many ids beside the background; Kubric's writer wraps above.
MAX_INSTANCES = 255
#: The unit cube's corners in the order of bboxes_3d: index = 4 x + 2 y + z.
CUBE_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
_FIT_CUBE = np.linalg.pinv(np.concatenate([CUBE_CORNERS, np.ones((8, 1))], axis=1))
#: Of the largest coordinate: float32 corners are exact to 1e-7 of it, a wrong corner order misses by the box.
_MAX_CORNER_ERROR = 1e-5
#: Of the box's diagonal: how far it may move against the pose before the two are called inconsistent.
_MAX_BOX_DRIFT = 1e-3


@dataclass(frozen=True)
class InstanceTracks:
    """Poses of one instance.

    Attributes:
        name: For people.
        world_from_instance: (T, 4, 4) rigid.
        world_from_box: (T, 4, 4) affine from object coordinates.
    """

    name: str
    world_from_instance: Float
    world_from_box: Float


def instance_tracks(instance: dict[str, Any], name: str, num_frames: int, where: str) -> InstanceTracks:
    """Read and check the poses of one instance.

    Args:
        instance: positions (T, 3), quaternions (T, 4) wxyz, bboxes_3d (T, 8, 3).
        name: For people.
        num_frames: T.
        where: File and field, for errors.

    Raises:
        FormatError: A field is missing or has the wrong shape.
        ConventionError: Not finite, not rotations, a box that is no affine cube or does not follow the pose.
    """
    arrays = {
        key: numbers(field(instance, key, where), (num_frames, *shape), f"{where}.{key}")
        for key, shape in (("positions", (3,)), ("quaternions", (4,)), ("bboxes_3d", (8, 3)))
    }
    world_from_instance = poses(arrays["positions"], arrays["quaternions"], where)
    world_from_box = _affine_from_corners(arrays["bboxes_3d"], where)
    _check_box_follows_pose(world_from_instance, world_from_box, where)
    return InstanceTracks(name, world_from_instance, world_from_box)


def _affine_from_corners(corners: Float, where: str) -> Float:
    """Fit world_from_box (T, 4, 4) to (T, 8, 3) corners in the order of `CUBE_CORNERS`."""
    columns = np.einsum("ij,tjk->tik", _FIT_CUBE, corners)
    out = np.zeros((len(corners), 4, 4))
    out[:, :3, :] = np.swapaxes(columns, 1, 2)
    out[:, 3, 3] = 1
    error = np.abs(g.transform_points(out[:, None], CUBE_CORNERS) - corners).max(axis=(1, 2))
    limit = _MAX_CORNER_ERROR * np.maximum(1.0, np.abs(corners).max(axis=(1, 2)))
    bad = np.flatnonzero(error > limit)
    if bad.size:
        raise ConventionError(
            "Box corners are not an affine image of the unit cube in the order x, y, z.",
            where=f"{where}.bboxes_3d, frame {bad[0]}",
            expected=f"residual <= {limit[bad[0]]:.3g} m",
            found=f"{error[bad[0]]:.3g} m",
        )
    return out


def _check_box_follows_pose(world_from_instance: Float, world_from_box: Float, where: str) -> None:
    instance_from_box = g.invert_rigid(world_from_instance) @ world_from_box
    corners = g.transform_points(instance_from_box[:, None], CUBE_CORNERS)
    drift = np.linalg.norm(corners - corners[:1], axis=-1).max(axis=1)
    limit = _MAX_BOX_DRIFT * max(1e-3, float(np.linalg.norm(corners[0, 7] - corners[0, 0])))
    if drift.max() > limit:
        raise ConventionError(
            "bboxes_3d does not move with positions and quaternions (wxyz).",
            where=f"{where}, frame {int(drift.argmax())}",
            expected=f"box at rest in the instance frame within {limit:.3g} m",
            found=f"{drift.max():.3g} m",
        )


def motion_record(tracks: Sequence[InstanceTracks], times: Float) -> MotionRecord:
    """Assemble the motion record: row 0 is the background, row k + 1 is instance k of the metadata.

    Args:
        tracks: The instances in the source's order.
        times: (T,) seconds of the frames, which are also the motion clock.
    """
    num = len(tracks) + 1
    world_from_instance = np.tile(np.eye(4), (len(times), num, 1, 1))
    world_from_box = np.full((len(times), num, 4, 4), np.nan)
    for row, track in enumerate(tracks, start=1):
        world_from_instance[:, row] = track.world_from_instance
        world_from_box[:, row] = track.world_from_box
    return MotionRecord(
        times=times,
        instance_ids=np.arange(num, dtype=np.uint32),
        instance_names=("background", *(track.name for track in tracks)),
        instance_motion=np.array([_STATIC] + [_RIGID] * len(tracks), dtype=np.uint8),
        world_from_instance=world_from_instance,
        world_from_box=world_from_box,
    )


def check_instance_count(num: int, declared: int, where: str) -> None:
    """Refuse more instances than 8-bit ids, or more than the clip says it has.

    Workers count `num_instances` before or after dropping the never-visible ones, so fewer entries than declared
    are normal; a missing entry is caught by its pixel counts instead (`assemble.check_ids`).

    Raises:
        ConventionError: Either is the case.
    """
    if num > MAX_INSTANCES:
        raise ConventionError(
            "More instances than an 8-bit segmentation can number: their ids have wrapped.",
            where=where,
            expected=f"at most {MAX_INSTANCES}",
            found=num,
            mend="Render with fewer objects, or store segmentation with 16 bits.",
        )
    if num > declared:
        raise ConventionError(
            "More instances are described than num_instances says.", where=where, expected=declared, found=num
        )
