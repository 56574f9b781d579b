"""A sequence into a scene: two eyes as two views, mesh vertices as trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import has_file, inside, read_source
from converters.native.halves import NO_NUMBER, float_of_code, z_of_code, z_of_frames
from converters.native.png import RGBA, PngKind, check_png_kind
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError
from datakit.motion.kinds import MotionKind
from datakit.scene.records import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    SourceFile,
    ViewRecord,
)

from . import rasters, trajectories
from .annotations import EYES, Row, rows_of
from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION
from .params import Params
from .trajectories import Vertices

#: A frame without an instance map: nothing is known of what moves how.
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Files:
    """The files that rows name: below `folder`, that of the annotation file, relative to the dataset's root."""

    root: Path
    folder: Path

    def has(self, row: Row, name: str) -> bool:
        """Tell whether a row's file is named and there."""
        path = row.paths.get(name)
        return path is not None and has_file(self.root, self.folder / path)

    def read(self, row: Row, name: str, sources: list[SourceFile]) -> tuple[bytes, str]:
        """Read a file of a row; returns its bytes and its place for errors."""
        path = self.folder / row.paths[name]
        return read_source(self.root, path, sources), str(self.root / path)


@dataclass(frozen=True)
class Clip:
    """A sequence's files, rows and motion.

    Attributes:
        files: Where its files are.
        rows: Eye -> its frames in order.
        motion: The scene's motion.
        broken: Left frame numbers whose depth misses the trajectories.
    """

    files: Files
    rows: dict[str, list[Row]]
    motion: MotionRecord
    broken: frozenset[int]


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one sequence; see `Converter.read`.

    Raises:
        LayoutError: No frame of it is there, or a path leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: Values break the format's conventions.
        UsageError: torch is not installed, which reads the trajectories.
    """
    sources: list[SourceFile] = []
    clip = _open(root, ref, params, sources)
    return SceneStream(_record(ref, clip, params), _frames(clip, sources), sources)


def _open(root: Path, ref: SceneRef, params: Params, sources: list[SourceFile]) -> Clip:
    annotation = Path(ref.location["annotations"])
    all_rows = rows_of(inside(root, annotation), ref.location["sequence"])
    eyes = EYES if params.views == "both" else EYES[:1]
    here = Files(root, annotation.parent)
    rows = {eye: [row for row in all_rows if row.eye == eye and here.has(row, "image")] for eye in eyes}
    rows = {eye: found for eye, found in rows.items() if found}
    if not rows:
        raise LayoutError(
            "No frame of the sequence is there.",
            where=root / annotation,
            expected=f"pictures of {ref.location['sequence']}",
            found=f"{len(all_rows)} annotated frames",
        )
    for eye, found in rows.items():
        if len({row.size for row in found}) > 1:
            raise FormatError(
                "Pictures of one camera differ in size.",
                where=f"{ref.id}, {eye}",
                found={r.size for r in found},
            )
    motion, broken = _motion(here, all_rows, rows, params, sources, ref.id)
    return Clip(here, rows, motion, broken)


def _motion(
    files: Files,
    all_rows: list[Row],
    rows: dict[str, list[Row]],
    params: Params,
    sources: list[SourceFile],
    where: str,
) -> tuple[MotionRecord, frozenset[int]]:
    """Read all trajectories, of frames without a picture too; without any, nothing is known of how things move."""
    tracked = [row for row in all_rows if files.has(row, "trajectories")]
    clock = tracked or next(iter(rows.values()))
    times = np.array([row.time for row in clock])
    broken: set[int] = set()
    if not tracked:
        return _unknown_motion(times), frozenset()

    def vertices() -> Iterator[tuple[Row, Vertices]]:
        for row in tracked:
            data, place = files.read(row, "trajectories", sources)
            found = trajectories.read_vertices(data, place)
            if files.has(row, "depth") and _is_broken(files, row, found, params):
                broken.add(row.number)
            yield row, found

    points, state, point_instance = trajectories.follow(vertices(), len(tracked), where)
    ids = np.unique(point_instance)
    kinds = [_kind(points[point_instance == ident], params.still_step) for ident in ids]
    all_ids, all_kinds = [int(v) for v in ids], list(kinds)
    if 0 not in all_ids:
        # No vertex is of id 0: whatever shows it is no part of the mesh.
        all_ids, all_kinds = [0, *all_ids], [MotionKind.UNKNOWN, *all_kinds]
    all_ids, all_kinds = [*all_ids, all_ids[-1] + 1], [*all_kinds, MotionKind.UNKNOWN]
    poses = np.full((len(times), len(all_ids), 4, 4), np.nan)
    poses[:, np.array(all_kinds) == MotionKind.STATIC] = np.eye(4)
    record = MotionRecord(
        times=times,
        instance_ids=np.array(all_ids, np.uint32),
        instance_names=tuple([*(f"instance {ident}" for ident in all_ids[:-1]), UNLABELLED]),
        instance_motion=np.array(all_kinds, np.uint8),
        world_from_instance=poses,
        points_world=points,
        point_instance=point_instance,
        point_state={"left": _on_frames(state, tracked, rows["left"])} if "left" in rows else {},
    )
    return record, frozenset(broken)


def _unknown_motion(times: NDArray[np.float64]) -> MotionRecord:
    return MotionRecord(
        times=times,
        instance_ids=np.array([0, 1], np.uint32),
        instance_names=("background", UNLABELLED),
        instance_motion=np.array([MotionKind.UNKNOWN] * 2, np.uint8),
        world_from_instance=np.full((len(times), 2, 4, 4), np.nan),
    )


def _is_broken(files: Files, row: Row, vertices: Vertices, params: Params) -> bool:
    data, place = files.read(row, "depth", [])
    z = z_of_code(row.depth_scale, rasters.NEAREST)[rasters.depth_codes(data, row.size, place)]
    return bool(trajectories.depth_gap(row, vertices, z) > params.broken_depth)


def _kind(points: NDArray[np.float32], still_step: float) -> MotionKind:
    """Tell whether an instance's vertices move at all: (N, T, 3)."""
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    moves = bool(np.nanmax(steps, initial=0.0) >= still_step)
    return MotionKind.POINTS if moves else MotionKind.STATIC


def _on_frames(state: NDArray[np.uint8], tracked: Sequence[Row], frames: Sequence[Row]) -> NDArray[np.uint8]:
    """Spread states over the view's frames; unknown where a frame has no trajectories."""
    at = {row.number: t for t, row in enumerate(tracked)}
    out = np.zeros((len(state), len(frames)), np.uint8)
    for k, row in enumerate(frames):
        if row.number in at:
            out[:, k] = state[:, at[row.number]]
    return out


def _record(ref: SceneRef, clip: Clip, params: Params) -> SceneRecord:
    tracked = {round(float(t), 9): m for m, t in enumerate(clip.motion.times)}
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale="metric",
        time_kind="sequence",
        licence=LICENCE,
        citation=CITATION,
        source_conventions=SOURCE_CONVENTIONS,
        views={eye: _view(clip, rows, tracked) for eye, rows in clip.rows.items()},
        motion=clip.motion,
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        metadata={"broken_depth_frames": sorted(clip.broken), "baseline": _baseline(clip)},
    )


def _baseline(clip: Clip) -> float | None:
    """Distance between the eyes in the first frame, metres."""
    if len(clip.rows) < 2:
        return None
    left, right = (clip.rows[eye][0].world_from_cam[:3, 3] for eye in EYES)
    return float(np.linalg.norm(left - right))


def _view(clip: Clip, rows: list[Row], clock: dict[float, int]) -> ViewRecord:
    size = rows[0].size
    layers = {"rgb": LayerRecord(size, "png", "uint8", num_channels=4, channels=(0, 1, 2))}
    if any(clip.files.has(row, "depth") for row in rows):
        values, which = z_of_frames(
            [row.depth_scale for row in rows], str(clip.files.root / clip.files.folder), rasters.NEAREST
        )
        layers["z_depth"] = LayerRecord(
            size, "array", "uint16", depth_kind="rendered", code_values=values, code_values_row=which
        )
    layers["instances"] = LayerRecord(size, "array", str(_id_dtype(clip)))
    for name in ("flow_forward", "flow_backward"):
        if any(clip.files.has(row, name) for row in rows):
            # One component that is infinite or no number voids the other: `flow_codes` sees to that.
            values = np.where(np.isfinite(float_of_code()), float_of_code(), np.float32(np.nan))[None]
            layers[name] = LayerRecord(size, "array", "uint16", num_channels=2, code_values=values)
    return ViewRecord(
        size=size,
        times=np.array([row.time for row in rows]),
        frame_names=tuple(f"{row.number:04d}" for row in rows),
        intrinsics=np.array([row.intrinsics for row in rows]),
        world_from_cam=np.array([row.world_from_cam for row in rows]),
        pose_is_known=np.ones(len(rows), bool),
        motion_index=np.array([clock.get(round(row.time, 9), -1) for row in rows], np.int64),
        layers=layers,
    )


def _frames(clip: Clip, sources: list[SourceFile]) -> Iterator[Frame]:
    layer_names = {eye: _view(clip, rows, {}).layers for eye, rows in clip.rows.items()}
    for eye, rows in clip.rows.items():
        for k, row in enumerate(rows):
            layers: dict[str, Any] = {}
            data, place = clip.files.read(row, "image", sources)
            check_png_kind(data, PngKind(8, (RGBA,)), row.size, place)
            layers["rgb"] = data
            if "z_depth" in layer_names[eye]:
                layers["z_depth"] = _depth(clip, row, sources)
            layers["instances"] = _instances(clip, row, sources)
            for name in ("flow_forward", "flow_backward"):
                if name in layer_names[eye]:
                    layers[name] = _flow(clip, row, name, sources)
            yield Frame(eye, k, layers)


def _depth(clip: Clip, row: Row, sources: list[SourceFile]) -> NDArray[np.uint16]:
    if not clip.files.has(row, "depth") or (row.eye == "left" and row.number in clip.broken):
        return np.full(row.size[::-1], NO_NUMBER)
    data, place = clip.files.read(row, "depth", sources)
    return rasters.depth_codes(data, row.size, place)


def _id_dtype(clip: Clip) -> np.dtype[Any]:
    """16 bits, but where "unlabelled" is one more than they hold."""
    return np.dtype(np.uint16 if clip.motion.instance_ids[-1] < 1 << 16 else np.uint32)


def _instances(clip: Clip, row: Row, sources: list[SourceFile]) -> NDArray[Any]:
    """Read ids; what has no row in the motion record, or no map at all, is unlabelled."""
    known = clip.motion.instance_ids.astype(_id_dtype(clip))
    if not clip.files.has(row, "instances"):
        return np.full(row.size[::-1], known[-1])
    data, place = clip.files.read(row, "instances", sources)
    # Maps have at most 16 bits; a table over all of them is several times faster than a search in the known ids.
    label = np.full(1 << 16, known[-1])
    label[known[:-1][known[:-1] < len(label)]] = known[:-1][known[:-1] < len(label)]
    return np.take(label, rasters.instances(data, row.size, place))


def _flow(clip: Clip, row: Row, name: str, sources: list[SourceFile]) -> NDArray[np.uint16]:
    if not clip.files.has(row, name):
        return np.full((*row.size[::-1], 2), NO_NUMBER)
    data, place = clip.files.read(row, name, sources)
    mask = None
    if clip.files.has(row, f"{name}_mask"):
        mask, _ = clip.files.read(row, f"{name}_mask", sources)
    return rasters.flow_codes(data, mask, row.size, place)
