"""What both native forms share: layer records, the per-frame checks, and the scene record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import numbers
from datakit import geometry as g
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError, FormatError
from datakit.scene.records import LayerRecord, MotionRecord, Provenance, SceneRecord, ViewRecord

from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION, VIEW
from .params import Params

Float = NDArray[np.float64]
Size = tuple[int, int]

#: Kubric stores 1e10 m where a ray meets nothing; no Kubric scene is a kilometre deep.
MAX_DISTANCE = 1000.0
_FULL = 65535.0
#: Kubric clips start at simulation frame 1 by default, and its metadata do not say otherwise.
FRAME_START = 1

#: Native layer name -> ours, where the bytes of the image (or the integers) pass through.
LAYER_OF = {
    "rgba": "rgb",
    "video": "rgb",
    "segmentation": "instances",
    "segmentations": "instances",
    "depth": "z_depth",
    "normal": "normals_world",
    "object_coordinates": "object_coords",
    "forward_flow": "flow_forward",
    "backward_flow": "flow_backward",
}


@dataclass(frozen=True)
class FlowRange:
    """The value range of a clip's 16-bit flow, in pixels of its own grid."""

    low: float
    high: float


def flow_range(value: Any, where: str, pixels_per_unit: float = 1.0) -> FlowRange:
    """Check a (min, max) pair of flow values.

    Args:
        value: Two numbers.
        where: File and field, for errors.
        pixels_per_unit: Image size where flow is stored as a fraction of it, else 1.

    Raises:
        ConventionError: Not finite, or max < min.
    """
    low, high = numbers(value, (2,), where)
    if high < low:
        raise ConventionError(
            "A flow range is upside down.", where=where, expected="min <= max", found=(low, high)
        )
    return FlowRange(float(low * pixels_per_unit), float(high * pixels_per_unit))


def layer_record(
    native: str,
    size: Size,
    codec: str,
    *,
    flow: FlowRange | None = None,
    intrinsics: Float | None = None,
) -> LayerRecord:
    """Describe how a native layer is stored and decoded.

    Flow is (row, column) on disk and (du, dv) here; `backward_flow` is x(t) - x(t-1) on disk, so its sign
    turns (kubric issue 152). A degenerate range (nothing moves) makes the scale zero: the stored pixels are
    garbage there and every value is the constant.

    Args:
        native: Kubric's layer name.
        size: (W, H).
        codec: "png" or "array".
        flow: Range, for the flow layers.
        intrinsics: (T, 3, 3) where the samples do not sit at the colour grid's pixel centres.
    """
    if native == "depth":
        return LayerRecord(size, "array", "float32", intrinsics=intrinsics, depth_kind="rendered")
    if native in ("rgba", "video"):
        num = 4 if native == "rgba" else 3
        return LayerRecord(size, codec, "uint8", num_channels=num, channels=(0, 1, 2))
    if native in ("segmentation", "segmentations"):
        return LayerRecord(size, codec, "uint8", intrinsics=intrinsics)
    if flow is None:
        scale, offset = (2 / _FULL, -1.0) if native == "normal" else (1 / _FULL, 0.0)
        return LayerRecord(
            size,
            codec,
            "uint16",
            3,
            value_scale=(scale,) * 3,
            value_offset=(offset,) * 3,
            intrinsics=intrinsics,
        )
    sign = -1.0 if native == "backward_flow" else 1.0
    return LayerRecord(
        size,
        codec,
        "uint16",
        num_channels=3 if codec == "png" else 2,
        channels=(1, 0),
        value_scale=(sign * (flow.high - flow.low) / _FULL,) * 2,
        value_offset=(sign * flow.low,) * 2,
        intrinsics=intrinsics,
    )


def z_from_distance(distance: NDArray[np.floating[Any]], intrinsics: Float) -> NDArray[np.float32]:
    """Turn distances along the ray into float32 z depth, NaN where the ray met nothing.

    Args:
        distance: (H, W) metres.
        intrinsics: (3, 3) of that grid.
    """
    dist = distance.astype(np.float64)
    z_per_distance = _z_per_distance(distance.shape, tuple(intrinsics.ravel().tolist()))
    hit = np.isfinite(dist) & (dist > 0) & (dist <= MAX_DISTANCE)
    return np.where(hit, dist * z_per_distance, np.nan).astype(np.float32)


@lru_cache(maxsize=2)
def _z_per_distance(shape: tuple[int, ...], intrinsics: tuple[float, ...]) -> Float:
    # The same for all frames of a clip, and dearer than all else that is done to a depth image.
    return np.asarray(g.z_from_ray_distance(np.ones(shape), np.reshape(intrinsics, (3, 3))))


def check_ids(
    ids: NDArray[np.uint8], visibility: NDArray[np.int64] | None, num_instances: int, where: str
) -> None:
    """Check a segmentation frame against the instances.

    Args:
        ids: (H, W) indices.
        visibility: (K,) pixel counts the source gives for this frame, or None where they are of another
            resolution.
        num_instances: K.
        where: File, for errors.

    Raises:
        ConventionError: An id has no instance, or an instance has another number of pixels than the source
            counted, which is what a dropped or re-ordered entry looks like.
    """
    counts = np.bincount(ids.reshape(-1), minlength=num_instances + 1)
    if counts.size > num_instances + 1:
        beyond = np.flatnonzero(counts[num_instances + 1 :]) + num_instances + 1
        raise ConventionError(
            "A segmentation has an id without an instance.",
            where=where,
            expected=f"ids 0..{num_instances}",
            found=f"ids {beyond.tolist()}",
        )
    if visibility is None:
        return
    wrong = np.flatnonzero(counts[1:] % 65536 != visibility % 65536)
    if wrong.size:
        k = int(wrong[0])
        raise ConventionError(
            "An instance's pixel count is not its visibility: an instance is missing or out of order.",
            where=f"{where}: instances[{k}].visibility",
            expected=int(visibility[k]),
            found=int(counts[k + 1]),
        )


def integer_counts(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.int64]:
    """Read pixel counts: `numbers` that must be whole and not negative, as int64."""
    array = numbers(value, shape, where)
    if (array < 0).any() or (array != np.round(array)).any():
        raise FormatError(
            "A pixel count is not a whole number.", where=where, expected=">= 0", found=array.min()
        )
    return array.astype(np.int64)


def compact_collisions(rows: Iterable[tuple[int, int, float, float]]) -> dict[str, Any]:
    """Sum Kubric's collision list (one entry per contact point and substep) per pair of ids and frame.

    `image_position` is left out: it is projected with the camera's last pose and wrong for moving cameras
    (kubric/utils.py:187).

    Args:
        rows: Ids of both instances (0 for floor and other background), simulation frame, force.

    Returns:
        "count" of native entries, and parallel lists: image index ("frame", -1 is before the clip), "ids",
        number of "contacts", and the largest force ("max_force", newton).
    """
    count = 0
    groups: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for id_a, id_b, frame, force in rows:
        count += 1
        groups[int(frame // 1) - FRAME_START, id_a, id_b].append(force)
    keys = sorted(groups)
    return {
        "count": count,
        "frame": [k[0] for k in keys],
        "ids": [[k[1], k[2]] for k in keys],
        "contacts": [len(groups[k]) for k in keys],
        "max_force": [round(max(groups[k]), 6) for k in keys],
        "note": f"frame is the image index: simulation frame - {FRAME_START}",
    }


def scene_record(
    ref: SceneRef,
    params: Params,
    *,
    size: Size,
    frame_rate: float,
    intrinsics: Float,
    world_from_cam: Float,
    layers: Mapping[str, LayerRecord],
    motion: MotionRecord,
    frame_names: Sequence[str],
    metadata: Mapping[str, Any],
) -> SceneRecord:
    """Assemble the scene record of a one-camera clip whose motion clock is its frame times."""
    num_frames = len(world_from_cam)
    view = ViewRecord(
        size=size,
        times=np.arange(num_frames) / frame_rate,
        frame_names=tuple(frame_names),
        intrinsics=np.tile(intrinsics, (num_frames, 1, 1)),
        world_from_cam=world_from_cam,
        pose_is_known=np.ones(num_frames, dtype=bool),
        motion_index=np.arange(num_frames, dtype=np.int64),
        layers=layers,
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
        world_up=(0.0, 0.0, 1.0),
        metadata=metadata,
    )
