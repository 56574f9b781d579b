"""Make the members of one sample from a window of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.scene import MotionRecord, Scene, View
from datakit.schema import require_record

from . import codecs
from .boundaries import boundary_rows, depth_boundary, frame_motion_boundary, moves
from .difficulty import measure_difficulty, summarise_difficulty
from .layout import canonical_json, clip_key
from .overlaps import window_overlap
from .params import PackParams
from .stored_view import StoredView

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Window:
    """What one sample is cut from.

    Attributes:
        view: Name of the view.
        start: First frame; where the photos of a set were chosen, the one that the window was grown from. No two
            windows of a view have the same.
        num_frames: Frames.
        photos: Frames that were chosen, ascending; None for `num_frames` adjoining ones.
        by: What the photos of a set longer than a window were chosen by (`overlaps.set_windows`); None for others.
    """

    view: str
    start: int
    num_frames: int
    photos: tuple[int, ...] | None = None
    by: str | None = None

    @property
    def frames(self) -> Sequence[int]:
        """Its frames, ascending."""
        return range(self.start, self.start + self.num_frames) if self.photos is None else self.photos


@dataclass(frozen=True)
class Origin:
    """The hashes that tie a sample to its scene."""

    scene_sha256: str
    certificate_level: str
    certificate_sha256: str
    sources_sha256: str


@dataclass(frozen=True)
class Clip:
    """One sample, ready to be written.

    Attributes:
        key: Its key.
        members: (kind, bytes) in the order of `layout.KINDS`.
        header: What `clip.json` says.
        motion_kinds: `MotionKind`s of the instances seen in it.
        overlap: `datakit.covisibility.pack_overlap` of its photos; empty where it is not known or is no set.
    """

    key: str
    members: list[tuple[str, bytes]]
    header: dict[str, Any]
    motion_kinds: tuple[int, ...]
    overlap: bytes = b""


def make_clip(
    scene: Scene, window: Window, origin: Origin, params: PackParams, covisibility: Path | None = None
) -> Clip:
    """Cut, encode and describe one sample. The same arguments give the same bytes.

    Args:
        scene: Open scene.
        window: Which frames.
        origin: Hashes of the scene and its certificate.
        params: How to store.
        covisibility: The scene's covisibility file, for sets of photos; None measures.

    Returns:
        The sample.

    Raises:
        FormatError: A frame of the scene is damaged.
        ConventionError: The result would break the contract.
    """
    view = scene.views[window.view]
    stored = StoredView(view, params)
    frames = window.frames
    packs: list[tuple[str, bytes]] = [("rgb.pack", codecs.pack([stored.rgb(t) for t in frames]))]
    layers: dict[str, Any] = {}
    labels = None
    if stored.has("z_depth"):
        layers["z_depth"], data = _depth_pack(stored, view, frames, params)
        packs.append(("z_depth.pack", data))
    if stored.has("instances"):
        layers["instances"], data, labels = _instances_pack(stored, frames)
        packs.append(("instances.pack", data))
    if stored.has("normals_world"):
        layers["normals"] = {"codec": "oct16-xdelta32-zstd", "size": list(stored.layer_size("normals_world"))}
        packs.append(
            ("normals.pack", codecs.pack([codecs.encode_normals(stored.normals(t)) for t in frames]))
        )

    motion, motion_index = cut_motion(scene.motion, view.motion_index[np.asarray(frames)], labels)
    arrays = _camera_arrays(view, stored, frames) | _motion_arrays(motion, motion_index)
    arrays |= _boundary_arrays(stored, view, frames, motion, motion_index, params)
    num_tracks = params.difficulty_tracks if "z_depth" in layers else 0
    difficulty = measure_difficulty(scene, view, frames, num_tracks)
    arrays |= difficulty
    header = _header(scene, view, stored, window, origin) | layers
    seen_together = window_overlap(
        scene, window.view, frames, covisibility, origin.scene_sha256, params.covisibility_points
    )
    if seen_together is not None:
        arrays["overlap"], header["covisibility"] = seen_together[0], dict(seen_together[1])
    header["arrays"] = sorted(arrays)
    header["difficulty"] = summarise_difficulty(difficulty)
    _check_contract(header, arrays)
    first = [
        ("clip.json", canonical_json(header)),
        (
            "arrays.safetensors",
            safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}),
        ),
    ]
    kinds = tuple(sorted({int(kind) for kind in motion.instance_motion}))
    overlap = arrays["overlap"].tobytes() if "overlap" in arrays else b""
    return Clip(header["key"], first + packs, header, kinds, overlap)


def _depth_pack(
    stored: StoredView, view: View, frames: Sequence[int], params: PackParams
) -> tuple[dict[str, Any], bytes]:
    low, high = np.inf, 0.0
    for t in frames:
        z = stored.z_depth(t)
        known = z[np.isfinite(z) & (z > 0)]
        if len(known):
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    codec = codecs.depth_codec(low, high, exact=params.depth == "float32")
    data = codecs.pack([codecs.encode_depth(stored.z_depth(t), codec) for t in frames])
    return codec | {"size": list(stored.layer_size("z_depth")), "kind": view.depth_kind}, data


def _instances_pack(
    stored: StoredView, frames: Sequence[int]
) -> tuple[dict[str, Any], bytes, NDArray[np.uint32]]:
    rasters = [stored.instances(t) for t in frames]
    labels = np.unique(np.concatenate([_labels_in(raster) for raster in rasters]))
    dtype = next(d for d in ("uint8", "uint16", "uint32") if labels[-1] <= np.iinfo(d).max)
    data = codecs.pack([codecs.encode_instances(raster, dtype) for raster in rasters])
    layer = {"codec": "zstd", "size": list(stored.layer_size("instances")), "dtype": dtype}
    return layer, data, labels.astype(np.uint32)


def _labels_in(raster: NDArray[np.uint32]) -> NDArray[np.int64]:
    if raster.max() < 1 << 16:  # counting is ten times faster than sorting
        return np.flatnonzero(np.bincount(raster.ravel()))
    return np.unique(raster).astype(np.int64)


def cut_motion(
    motion: MotionRecord, motion_index: NDArray[np.int64], labels: NDArray[np.uint32] | None
) -> tuple[MotionRecord, NDArray[np.int64]]:
    """Keep what a clip can ask of a scene's motion.

    Args:
        motion: The scene's.
        motion_index: (T,) samples of the clip's frames on the motion clock, -1 for none.
        labels: Instances seen in the clip; None where there is no instance layer and all is instance 0.

    Returns:
        The record with only the samples of these frames, the background and the instances seen, and trajectories
        that are known at some of these samples; and (T,) motion_index into its clock.
    """
    used = np.unique(motion_index[motion_index >= 0])
    index = np.where(motion_index >= 0, np.searchsorted(used, motion_index), -1)
    seen = np.union1d(np.zeros(1, np.uint32), np.zeros(0, np.uint32) if labels is None else labels)
    rows = np.isin(motion.instance_ids, seen)
    rows[0] |= not rows.any()  # a record has at least one row
    points = point_instance = None
    if motion.points_world is not None and motion.point_instance is not None:
        points = motion.points_world[:, used].astype(np.float32)
        keep = np.isin(motion.point_instance, seen) & np.isfinite(points).all(axis=-1).any(axis=-1)
        points, point_instance = points[keep], motion.point_instance[keep]
    cut = replace(
        motion,
        times=motion.times[used],
        instance_ids=motion.instance_ids[rows],
        instance_names=tuple(np.array(motion.instance_names, object)[rows]),
        instance_motion=motion.instance_motion[rows],
        world_from_instance=motion.world_from_instance[used][:, rows],
        world_from_box=None,
        points_world=points,
        point_instance=point_instance,
        point_state={},
    )
    return cut, index.astype(np.int64)


def _camera_arrays(view: View, stored: StoredView, frames: Sequence[int]) -> Arrays:
    at = np.asarray(frames)
    arrays = {
        "times": view.times[at],
        "intrinsics": stored.intrinsics[at],
        "world_from_cam": view.world_from_cam[at],
        "pose_is_known": view.pose_is_known[at],
    }
    if stored.has("z_depth"):
        arrays["depth_intrinsics"] = stored.layer_intrinsics("z_depth")[at]
    for layer, name in (("instances", "instances_intrinsics"), ("normals_world", "normals_intrinsics")):
        if stored.has(layer) and not _shares_depth_grid(stored, layer, at):
            arrays[name] = stored.layer_intrinsics(layer)[at]
    return arrays


def _shares_depth_grid(stored: StoredView, layer: str, at: NDArray[np.int64]) -> bool:
    return (
        stored.has("z_depth")
        and stored.layer_size(layer) == stored.layer_size("z_depth")
        and np.array_equal(stored.layer_intrinsics(layer)[at], stored.layer_intrinsics("z_depth")[at])
    )


def _motion_arrays(motion: MotionRecord, motion_index: NDArray[np.int64]) -> Arrays:
    arrays: Arrays = {
        "motion_index": motion_index,
        "motion_times": motion.times,
        "instance_ids": motion.instance_ids,
        "instance_motion": motion.instance_motion,
        "world_from_instance": motion.world_from_instance,
    }
    if motion.points_world is not None and motion.point_instance is not None:
        arrays["points_world"] = motion.points_world
        arrays["point_instance"] = motion.point_instance
    return arrays


def _boundary_arrays(
    stored: StoredView,
    view: View,
    frames: Sequence[int],
    motion: MotionRecord,
    motion_index: NDArray[np.int64],
    params: PackParams,
) -> Arrays:
    none = np.zeros((0, 3), np.int32)
    depth_rows, motion_rows = [none], [none]
    if stored.has("z_depth"):
        for i, t in enumerate(frames):
            mask = depth_boundary(stored.z_depth(t), params.depth_edge, params.edge_dilate)
            depth_rows.append(boundary_rows(mask, i, params.edges_per_frame))
        if moves(motion):
            find = partial(
                frame_motion_boundary,
                edge=params.motion_edge,
                dilate=params.edge_dilate,
                grid=params.motion_grid,
            )
            camera = stored.layer_intrinsics("z_depth")
            for i, t in enumerate(frames):
                # Motion to the next frame; the last frame looks back, where the step has the same size.
                other = i + 1 if i + 1 < len(frames) else i - 1
                if other < 0 or motion_index[i] < 0 or motion_index[other] < 0 or not view.pose_is_known[t]:
                    continue
                mask = find(
                    stored.z_depth(t),
                    _labels_on_depth_grid(stored, t),
                    camera[t],
                    view.world_from_cam[t],
                    motion,
                    int(motion_index[i]),
                    int(motion_index[other]),
                )
                motion_rows.append(boundary_rows(mask, i, params.edges_per_frame))
    arrays: Arrays = {"boundary_depth": np.concatenate(depth_rows)}
    return arrays | {"boundary_motion": np.concatenate(motion_rows)}


def _labels_on_depth_grid(stored: StoredView, t: int) -> NDArray[np.uint32] | None:
    if not stored.has("instances"):
        return None
    labels = stored.instances(t)
    if _shares_depth_grid(stored, "instances", np.array([t])):
        return labels
    # Labels are never interpolated: each depth pixel takes the label of the pixel its centre falls on.
    own_from_depth = stored.layer_intrinsics("instances")[t] @ np.linalg.inv(
        stored.layer_intrinsics("z_depth")[t]
    )
    centres = g.homography_points(own_from_depth, g.pixel_centres(stored.layer_size("z_depth")))
    height, width = labels.shape
    col, row = np.moveaxis(np.floor(centres).astype(np.int64), -1, 0)
    return labels[np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)]


def _header(scene: Scene, view: View, stored: StoredView, window: Window, origin: Origin) -> dict[str, Any]:
    header: dict[str, Any] = {
        "key": clip_key(scene.dataset, scene.id, window.view, window.start),
        "dataset": scene.dataset,
        "scene": f"{scene.dataset}/{scene.id}",
        "scene_sha256": origin.scene_sha256,
        "certificate_sha256": origin.certificate_sha256,
        "certificate_level": origin.certificate_level,
        "view": window.view,
        "frame_indices": list(window.frames),
        "scale": scene.scale,
        "licence": scene.licence,
        "split": scene.split,
        "time_kind": scene.time_kind,
        "size": list(stored.size),
        "source_size": list(view.size),
        "rgb": {"is_verbatim": stored.is_verbatim, "is_rectified": stored.is_rectified},
        "provenance": {
            "scene_id": scene.id,
            "converter": scene.provenance["converter"],
            "converter_version": scene.provenance["converter_version"],
            "sources_sha256": origin.sources_sha256,
            "frame_names": [view.frame_names[t] for t in window.frames],
        },
    }
    if window.by is not None:
        header["window_by"] = window.by
    return header


def _check_contract(header: dict[str, Any], arrays: Arrays) -> None:
    scalars = ("key", "scene", "scene_sha256", "certificate_sha256", "view", "scale", "licence")
    record: dict[str, Any] = {name: header[name] for name in scalars}
    record |= {name: arrays[name] for name in ("times", "intrinsics", "world_from_cam", "pose_is_known")}
    record["frame_indices"] = np.array(header["frame_indices"], np.int64)
    require_record("clip", record, header["key"])
