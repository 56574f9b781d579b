"""What all native forms share: calibration, poses, times, depth codes, and the scene record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError
from datakit.motion import MotionKind
from datakit.scene.records import LayerRecord, MotionRecord, Provenance, SceneRecord, ViewRecord

from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION, VIEW
from .params import Params

Float = NDArray[np.float64]
Size = tuple[int, int]

#: How far a stored rotation may be from a true one: decimals of the exporters are good to 1e-6, nothing real to 1e-3.
_ROTATION_TOLERANCE = 1e-3
#: A principal point further from the middle, as a share of the image, belongs to another image size.
_OFF_CENTRE = 0.15
_MICROSECOND = 1e-6
#: Codes per metre: 1000 in all released scans.
_DEPTH_SHIFTS = (10.0, 1e5)
#: Steps of a steady clock, in seconds: the median of a 30 Hz camera, and the longest pause that is still one scan.
_MEDIAN_STEP, _LONGEST_STEP = (1e-3, 1.0), 10.0


@dataclass(frozen=True)
class Calibration:
    """Both grids of a scan, in the contract's conventions.

    Attributes:
        colour_size: (W, H).
        depth_size: (W, H).
        colour_k: (3, 3) pixels of the colour grid, corner origin.
        depth_k: (3, 3) pixels of the depth grid, corner origin.
        metres_per_code: What one step of the 16-bit depth is.
    """

    colour_size: Size
    depth_size: Size
    colour_k: Float
    depth_k: Float
    metres_per_code: float


def corner_k(matrix: Float, size: Size, where: str) -> Float:
    """Turn a 4x4 intrinsic matrix with integer pixel centres into the contract's K.

    Args:
        matrix: (4, 4) rows fx s cx 0 / 0 fy cy 0 / 0 0 1 0 / 0 0 0 1.
        size: (W, H) of the images it is said to belong to.
        where: File and field, for errors.

    Raises:
        ConventionError: Not such a matrix, or of another image size.
    """
    k = matrix[:3, :3]
    shape = np.zeros((4, 4))
    shape[:3, :3] = np.triu(k)
    shape[2, 2] = shape[3, 3] = 1
    if not np.isfinite(matrix).all() or (matrix != shape).any() or min(k[0, 0], k[1, 1]) <= 0:
        raise ConventionError(
            "Not an intrinsic matrix.",
            where=where,
            expected="fx s cx 0 / 0 fy cy 0 / 0 0 1 0 / 0 0 0 1",
            found=matrix.tolist(),
        )
    out = g.corner_from_centre_intrinsics(k)
    off = np.abs(out[:2, 2] / size - 0.5)
    if off.max() > _OFF_CENTRE:
        raise ConventionError(
            "The principal point is far from the middle of the image; the images may have been resized.",
            where=where,
            expected=f"about ({size[0] / 2:g}, {size[1] / 2:g})",
            found=out[:2, 2].tolist(),
            mend="Export the images again in their own size, or convert the .sens.",
        )
    return out


def check_registered(extrinsics: Mapping[str, Float], where: str) -> None:
    """Check that depth is registered to colour, as in every released scan (ScanNet issue 92).

    Raises:
        ConventionError: An extrinsic matrix is not the identity; such depth is no layer of the colour camera.
    """
    for name, matrix in extrinsics.items():
        if not np.array_equal(matrix, np.eye(4)):
            raise ConventionError(
                "Depth and colour are not registered to each other.",
                where=f"{where}: {name}",
                expected="the identity, as in the released scans",
                found=matrix.tolist(),
            )


def exact_poses(camera_to_world: Float, where: str, names: Sequence[str]) -> tuple[Float, NDArray[np.bool_]]:
    """Find the frames whose pose is known, and the nearest exact rigid matrix of each.

    A lost pose is -inf in all entries (SensReader/c++/README.txt); any entry that is not finite counts.

    Args:
        camera_to_world: (T, 4, 4) as stored.
        where: File, for errors.
        names: Of the frames.

    Returns:
        world_from_cam (T, 4, 4), NaN where unknown; and (T,) bool.

    Raises:
        ConventionError: A finite pose is not rigid within the precision of any of the formats.
    """
    known = np.asarray(np.isfinite(camera_to_world).all(axis=(1, 2)))
    safe = np.where(known[:, None, None], camera_to_world, np.eye(4))
    with np.errstate(over="ignore", invalid="ignore"):
        left, _, right = np.linalg.svd(np.clip(safe[:, :3, :3], -2, 2))
        rotation = left @ right
        off = np.abs(rotation - safe[:, :3, :3]).max(axis=(1, 2))
    off = np.maximum(off, np.abs(safe[:, 3] - [0, 0, 0, 1]).max(axis=1))
    bad = np.flatnonzero((off > _ROTATION_TOLERANCE) | (np.linalg.det(rotation) < 0))
    if bad.size:
        t = int(bad[0])
        raise ConventionError(
            "A pose is not rigid.",
            where=f"{where}, frame {names[t]}",
            expected="a rotation and a translation, or -inf where tracking was lost",
            found=camera_to_world[t].tolist(),
        )
    out = g.rigid_from(rotation, safe[:, :3, 3])
    return np.where(known[:, None, None], out, np.nan), known


def steady_times(timestamps: NDArray[np.uint64]) -> tuple[Float | None, str]:
    """Turn time stamps into seconds from the first, if they can be believed.

    Args:
        timestamps: (T,) microseconds (sensorData.h:781).

    Returns:
        (T,) seconds, or None; and how, for the metadata.
    """
    if len(timestamps) < 2:
        return None, "a single time stamp"
    if not timestamps.any():
        return None, "all time stamps are 0"
    # uint64 wraps; a step back is larger than any step forward then.
    seconds = np.diff(timestamps) * _MICROSECOND
    if (seconds == 0).any() or (seconds > _LONGEST_STEP).any():
        return None, "time stamps do not increase steadily"
    if not _MEDIAN_STEP[0] <= np.median(seconds) <= _MEDIAN_STEP[1]:
        return None, f"time stamps are {np.median(seconds):g} s apart"
    return (timestamps - timestamps[0]) * _MICROSECOND, "timestamp_color"


def metres_per_code(depth_shift: float, where: str) -> float:
    """Turn depthShift, codes per metre, into metres per code.

    Raises:
        ConventionError: Nothing that makes 16 bits into the depth of a room.
    """
    if not _DEPTH_SHIFTS[0] <= depth_shift <= _DEPTH_SHIFTS[1]:
        raise ConventionError(
            "Depth has an absurd unit.",
            where=where,
            expected=f"{_DEPTH_SHIFTS[0]:g} to {_DEPTH_SHIFTS[1]:g} codes per metre",
            found=depth_shift,
        )
    return 1 / depth_shift


def z_of_code(metres_per_code: float) -> NDArray[np.float32]:
    """Return the (65536,) float32 z depth in metres of each 16-bit code; 0 is unknown (sensorData.h:968-977)."""
    table = np.arange(1 << 16) * metres_per_code
    table[0] = np.nan
    return table.astype(np.float32)


def scene_record(
    ref: SceneRef,
    params: Params,
    calibration: Calibration,
    *,
    codec: str,
    poses: Float,
    known: NDArray[np.bool_],
    times: Float,
    names: Sequence[str],
    metadata: Mapping[str, Any],
) -> SceneRecord:
    """Assemble the record of a scan: one view, static background only."""
    num_frames = len(times)
    colour, depth = (np.tile(k, (num_frames, 1, 1)) for k in (calibration.colour_k, calibration.depth_k))
    view = ViewRecord(
        size=calibration.colour_size,
        times=times,
        frame_names=tuple(names),
        intrinsics=colour,
        world_from_cam=poses,
        pose_is_known=known,
        motion_index=np.arange(num_frames, dtype=np.int64),
        layers={
            "rgb": LayerRecord(calibration.colour_size, codec, "uint8", num_channels=3),
            "z_depth": LayerRecord(
                calibration.depth_size,
                "array",
                "uint16",
                intrinsics=depth,
                depth_kind="sensor",
                code_values=z_of_code(calibration.metres_per_code)[None],
            ),
        },
    )
    motion = MotionRecord(
        times=times,
        instance_ids=np.zeros(1, np.uint32),
        instance_names=("scene",),
        instance_motion=np.array([MotionKind.STATIC], np.uint8),
        world_from_instance=np.tile(np.eye(4), (num_frames, 1, 1, 1)),
    )
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale="metric",
        time_kind="sequence",
        licence=LICENCE,
        citation=CITATION,
        source_conventions=SOURCE_CONVENTIONS,
        views={VIEW: view},
        motion=motion,
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        world_up=(0.0, 0.0, 1.0),  # of the reconstruction's mesh (ScanNet README.md:45-46), in the same frame
        metadata=metadata,
    )
