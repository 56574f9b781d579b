"""A reconstruction as a scene of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind, Visibility
from datakit.scene import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    ViewRecord,
    encode_png,
)

from .grids import cell_at
from .stitch import JoinedTracks, Reconstruction
from .video import FrameSource

CONVERTER_VERSION = "1"
VIEW = "camera"
STATIC_ID, MOVING_ID = 0, 1
_JPEG_QUALITY = 95


def scene_stream(
    rec: Reconstruction, source: FrameSource, provenance: Mapping[str, Any], licence: str | None = None
) -> SceneStream:
    """Turn a reconstruction into a scene: depth is `pseudo`, the unit unknown, tracks are trajectories.

    Cells whose motion is below the inference's own limit are instance 0, static; the others are instance 1, whose
    points move. So whatever reads scenes treats still things as still.

    Args:
        rec: What was inferred; its frames are those of the source.
        source: Where the pictures come from.
        provenance: Model and parameters, as plain data.
        licence: Of the video; None for what its source says.
    """
    info, num = source.info, len(rec.times_s)
    kept = source.encoded()
    codec = _codec(kept)
    height, width = rec.frame(0).z_depth.shape
    depth_k = _intrinsics(rec, (width, height))
    plain_layer = LayerRecord((width, height), "array", "float32", intrinsics=depth_k)
    layers = {
        "rgb": LayerRecord(info.size, codec, "uint8", num_channels=3),
        "z_depth": replace(plain_layer, depth_kind="pseudo"),
        "depth_confidence": plain_layer,
        "instances": replace(plain_layer, dtype="uint8"),
    }
    if rec.frame(0).normal is not None:
        layers["normals_world"] = replace(plain_layer, num_channels=3)
    view = ViewRecord(
        size=info.size,
        times=rec.times_s,
        frame_names=info.names,
        intrinsics=_intrinsics(rec, info.size),
        world_from_cam=rec.world_from_cam,
        pose_is_known=np.isfinite(rec.world_from_cam).all(axis=(1, 2)),
        motion_index=np.arange(num),
        layers=layers,
    )
    record = SceneRecord(
        dataset="infer",
        id=scene_id(info.path),
        split="none",
        scale="unknown",
        time_kind="sequence",
        licence=licence or info.licence,
        citation="Inferred by datakit; depth, cameras and tracks are a model's predictions.",
        source_conventions=(
            f"{info.kind}; clock: {info.clock}; rotation applied: {info.rotation_deg} degrees. World: camera of the "
            "first frame, unit unknown. Pinhole with the centre in the middle of the picture."
        ),
        views={VIEW: view},
        motion=_motion(rec, num),
        provenance=Provenance("infer", CONVERTER_VERSION, dict(provenance), info.fingerprint()),
        metadata={
            "clock": info.clock,
            "notes": [*info.notes, *_focal_note(rec)],
            "frames_of_source": info.num_all,
            "seams": [plain(asdict(seam)) for seam in rec.seams],
        },
    )
    return SceneStream(record, _frames(rec, source, depth_k), list(info.files))


def scene_id(path: Path) -> str:
    """Return the name of a source as a scene's id.

    >>> scene_id(Path("my video (1).mp4"))
    'my_video__1_'
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)
    return name if name[:1].isalnum() else f"scene{name}"


def _codec(kept: Iterator[tuple[str, bytes]] | None) -> str:
    return "jpeg" if kept is None else next(kept)[0]


def _intrinsics(rec: Reconstruction, size: tuple[int, int]) -> NDArray[np.float64]:
    """K (T, 3, 3) of a grid of this size over the whole picture."""
    k = np.zeros((len(rec.fx_fy), 3, 3))
    k[:, 0, 0], k[:, 1, 1] = (_known_focal(rec) * np.array(size)).T
    k[:, 0, 2], k[:, 1, 2], k[:, 2, 2] = size[0] / 2, size[1] / 2, 1
    return k


def _known_focal(rec: Reconstruction) -> NDArray[np.float64]:
    """Return (T, 2) focal lengths; unknown ones are the median of the others, or else the longer side's length."""
    is_known = _focal_is_known(rec)
    if is_known.any():
        return np.where(is_known[:, None], rec.fx_fy, np.median(rec.fx_fy[is_known], axis=0))
    return np.tile(max(rec.size) / np.array(rec.size, np.float64), (len(rec.fx_fy), 1))


def _focal_is_known(rec: Reconstruction) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((np.isfinite(rec.fx_fy) & (rec.fx_fy > 0)).all(axis=1))


def _focal_note(rec: Reconstruction) -> list[str]:
    num = int((~_focal_is_known(rec)).sum())
    if not num:
        return []
    filled = "the median of the others" if num < len(rec.fx_fy) else "a guess, the picture's longer side"
    return [f"no focal length was found in {num} of {len(rec.fx_fy)} frames; theirs is {filled}"]


def _frames(rec: Reconstruction, source: FrameSource, depth_k: NDArray[np.float64]) -> Iterator[Frame]:
    kept = source.encoded()
    pictures = (data for _, data in kept) if kept is not None else map(_jpeg, source.frames())
    most = max(
        (float(np.nanmax(rec.frame(t).confidence, initial=0)) for t in range(len(rec.times_s))), default=0
    )
    for t, picture in enumerate(pictures):
        part = rec.frame(t)
        values: dict[str, Any] = {
            "rgb": picture,
            "z_depth": np.where(part.z_depth > 0, part.z_depth, np.nan).astype(np.float32),
            # An unbounded confidence is told as a share of the largest; the contract's ends at 1.
            "depth_confidence": (np.nan_to_num(part.confidence) / max(most, 1.0))
            .clip(0, 1)
            .astype(np.float32),
            "instances": np.where(part.static, STATIC_ID, MOVING_ID).astype(np.uint8),
        }
        if part.normal is not None:
            values["normals_world"] = _normals_world(part.normal, rec.world_from_cam[t], depth_k[t])
        yield Frame(VIEW, t, values)


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
        [
            cv2.IMWRITE_JPEG_QUALITY,
            _JPEG_QUALITY,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
    )
    return bytes(data) if ok else encode_png(rgb)


def _normals_world(
    normal_cam: NDArray[np.float32], world_from_cam: NDArray[np.float64], k: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Turn unit normals into the world frame, towards the camera, as the contract has them."""
    height, width = normal_cam.shape[:2]
    rays = g.camera_rays(g.pixel_centres((width, height)), k)
    normal = normal_cam / np.maximum(np.linalg.norm(normal_cam, axis=-1, keepdims=True), 1e-12)
    normal = np.where((normal * rays).sum(axis=-1, keepdims=True) > 0, -normal, normal)
    return np.asarray(normal @ world_from_cam[:3, :3].T, np.float32)


def _motion(rec: Reconstruction, num: int) -> MotionRecord:
    poses = np.full((num, 2, 4, 4), np.nan)
    poses[:, STATIC_ID] = np.eye(4)
    tracks = rec.tracks
    still = MotionRecord(
        times=rec.times_s,
        instance_ids=np.array([STATIC_ID, MOVING_ID], np.uint32),
        instance_names=("static", "moving"),
        instance_motion=np.array([MotionKind.STATIC, MotionKind.UNKNOWN], np.uint8),
        world_from_instance=poses,
    )
    if tracks is None or not len(tracks.query_uv):
        return still
    return replace(
        still,
        instance_motion=np.array([MotionKind.STATIC, MotionKind.POINTS], np.uint8),
        points_world=tracks.points_world.astype(np.float32),
        point_instance=_instance_of(rec, tracks),
        point_state={VIEW: _track_states(rec, tracks)},
    )


def _instance_of(rec: Reconstruction, tracks: JoinedTracks) -> NDArray[np.uint32]:
    """Give each track the instance of the cell it begins in."""
    found = np.full(len(tracks.query_frame), MOVING_ID, np.uint32)
    for t in np.unique(tracks.query_frame).tolist():
        rows = np.flatnonzero(tracks.query_frame == t)
        static = rec.frame(t).static
        row, col = cell_at(tracks.query_uv[rows], static.shape[1], static.shape[0])
        found[rows[static[row, col]]] = STATIC_ID
    return found


def _track_states(rec: Reconstruction, tracks: JoinedTracks) -> NDArray[np.uint8]:
    """Return (N, T) states: unknown without an answer, outside where the point leaves the picture."""
    states = np.zeros(tracks.visible.shape, np.uint8)
    k = _intrinsics(rec, (1, 1))
    for t in range(len(rec.times_s)):
        points_cam = g.transform_points(g.invert_rigid(rec.world_from_cam[t]), tracks.points_world[:, t])
        uv, z = g.project_points(points_cam, k[t])
        with np.errstate(invalid="ignore"):
            is_inside = ((uv >= 0) & (uv <= 1)).all(axis=1) & (z > 0)
            is_seen = tracks.visible[:, t] >= rec.params.visible_at
        is_known = np.isfinite(points_cam).all(axis=1) & np.isfinite(tracks.visible[:, t])
        states[:, t] = np.select(
            [~is_known, ~is_inside, is_seen],
            [Visibility.UNKNOWN, Visibility.OUTSIDE, Visibility.VISIBLE],
            Visibility.OCCLUDED,
        )
    return states


def plain(value: Any) -> Any:
    """Turn numpy's numbers into JSON's own; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
