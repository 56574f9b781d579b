"""A scene as plain data: what a converter hands to the writer, field by field as in `schemas/`.

Frames are not in here; they stream beside it as `Frame` objects, so that no scene is ever whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The layers a view can have; `schemas/layer.yaml` says what each one means.
LAYER_NAMES = (
    "rgb",
    "z_depth",
    "instances",
    "normals_world",
    "flow_forward",
    "flow_backward",
    "object_coords",
    "foreground",
    "depth_confidence",
)


@dataclass(frozen=True)
class LayerRecord:
    """How one raster layer of a view is stored and how stored samples become values.

    A layer is stored either as the source's own image bytes (`codec` "png" or "jpeg") or as a numeric array
    (`codec` "array"). In both cases value = sample[..., channels] * value_scale + value_offset, where an empty
    `channels` keeps all channels and an empty `value_scale` keeps the samples as they are. This is how a 16-bit
    PNG of flow or normals passes through untouched and still reads back in pixels or unit vectors. Where values are
    no linear function of the codes, or a code means unknown, `code_values` lists them: 16-bit depth stays 16-bit.

    Attributes:
        size: (W, H) of this layer's grid.
        codec: "png", "jpeg" or "array".
        dtype: Numpy dtype name of one stored sample ("uint8", "uint16", "float32").
        num_channels: Channels of one stored sample (1 for a plain (H, W) raster).
        channels: Which stored channels make the value, in this order; () for all.
        value_scale: Per value channel; () for none.
        value_offset: Per value channel; () for none.
        intrinsics: (T, 3, 3) float64 of this layer's grid; None where it is the view's own grid.
        depth_kind: For z_depth: "rendered", "sensor", "mvs", "lidar" or "pseudo"; else None.
        code_values: (S, 256 or 65536) float32, value of each code that a sample can be, NaN unknown, a row for each
            way in which frames are coded; None where samples are values or `value_scale` makes them so.
        code_values_row: (T,) int64, row of `code_values` of each frame; None where all have the first.
    """

    size: tuple[int, int]
    codec: str
    dtype: str
    num_channels: int = 1
    channels: tuple[int, ...] = ()
    value_scale: tuple[float, ...] = ()
    value_offset: tuple[float, ...] = ()
    intrinsics: NDArray[np.float64] | None = None
    depth_kind: str | None = None
    code_values: NDArray[np.float32] | None = None
    code_values_row: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ViewRecord:
    """One camera stream.

    Attributes:
        size: (W, H) of the colour grid.
        times: (T,) float64, seconds.
        frame_names: T native frame names.
        intrinsics: (T, 3, 3) float64, pixels, corner origin.
        world_from_cam: (T, 4, 4) float64, OpenCV axes; NaN where pose_is_known is False.
        pose_is_known: (T,) bool.
        motion_index: (T,) int64, which sample of the scene's motion clock each frame is at; -1 for none.
        layers: Layer name -> how it is stored.
        camera_model: "pinhole", "opencv", "full_opencv", "opencv_fisheye" (COLMAP's parameter order).
        distortion: Coefficients of `camera_model` after fx, fy, cx, cy; () for pinhole.
        is_rectified: True where the converter undistorted the source's images.
        shutter_axis: "global", "row" or "column".
        shutter_times: (T, H) or (T, W) float64 seconds along shutter_axis; None for a global shutter.
    """

    size: tuple[int, int]
    times: NDArray[np.float64]
    frame_names: tuple[str, ...]
    intrinsics: NDArray[np.float64]
    world_from_cam: NDArray[np.float64]
    pose_is_known: NDArray[np.bool_]
    motion_index: NDArray[np.int64]
    layers: Mapping[str, LayerRecord]
    camera_model: str = "pinhole"
    distortion: tuple[float, ...] = ()
    is_rectified: bool = False
    shutter_axis: str = "global"
    shutter_times: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class MotionRecord:
    """How the points of a scene move: one row per instance of the instance maps, id 0 being the background.

    Attributes:
        times: (M,) float64 seconds, the motion clock.
        instance_ids: (I,) uint32, sorted, as in the `instances` layers. A view without that layer is all id 0.
        instance_names: I names, for people.
        instance_motion: (I,) uint8: 0 unknown, 1 static, 2 rigid, 3 points (enum `MotionKind`).
        world_from_instance: (M, I, 4, 4) float64 rigid; identity for static rows, NaN where unknown.
        world_from_box: (M, I, 4, 4) float64 affine from object_coords in [0,1]^3 to the world, or None.
        points_world: (N, M, 3) float64 or float32 explicit trajectories, NaN where unknown, or None.
        point_instance: (N,) uint32 instance id of each trajectory, or None.
        point_state: view name -> (N, T) uint8 `Visibility`, where the source gives it.
    """

    times: NDArray[np.float64]
    instance_ids: NDArray[np.uint32]
    instance_names: tuple[str, ...]
    instance_motion: NDArray[np.uint8]
    world_from_instance: NDArray[np.float64]
    world_from_box: NDArray[np.float64] | None = None
    points_world: NDArray[np.floating[Any]] | None = None
    point_instance: NDArray[np.uint32] | None = None
    point_state: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFile:
    """One file (or part of one) that a scene was made from. `path` is relative to the dataset's root."""

    path: str
    size: int
    sha256: str
    offset: int = 0


@dataclass(frozen=True)
class Provenance:
    """Where a scene came from. Holds no clock time and no host name: same input, same bytes."""

    converter: str
    converter_version: str
    params: Mapping[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class SceneRecord:
    """Everything about a scene but its frames and the list of its sources.

    Attributes:
        dataset: Converter's name, e.g. "kubric".
        id: Unique within the dataset; letters, digits, "._-" only.
        split: The dataset's official split, or "none".
        scale: "metric", "sfm" or "unknown".
        time_kind: "sequence", or "set" for photos without an order in time.
        licence: SPDX id or the dataset's own licence name.
        citation: One line or BibTeX.
        source_conventions: What the source's own conventions are and how they were converted, for people.
        views: name -> ViewRecord, in the source's order.
        motion: MotionRecord.
        provenance: Provenance.
        world_up: (3,) unit vector in the world frame, or None where unknown.
        metadata: JSON-able extras of the source worth keeping (never geometry).
    """

    dataset: str
    id: str
    split: str
    scale: str
    time_kind: str
    licence: str
    citation: str
    source_conventions: str
    views: Mapping[str, ViewRecord]
    motion: MotionRecord
    provenance: Provenance
    world_up: tuple[float, float, float] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """The layers of one frame of one view: image bytes for encoded layers, arrays for array layers."""

    view: str
    index: int
    layers: Mapping[str, bytes | NDArray[Any]]


@dataclass
class SceneStream:
    """A scene on its way to disk. `sources` is complete once `frames` is exhausted."""

    record: SceneRecord
    frames: Iterator[Frame]
    sources: list[SourceFile]
