"""Reading one scene: cameras first, then photo by photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import inside, read_source
from datakit.convert.api import SceneRef
from datakit.errors import FormatError
from datakit.motion import MotionKind
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

from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION, VIEW
from .discover import CAMS, PAIRS, FrameFiles, frame_files
from .params import Params
from .pfm import parse_pfm, z_from_pfm
from .photos import Size, check_photo
from .projects import release_of
from .texts import NativeCamera, intrinsics_of, parse_cam, parse_pairs, pose_of


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open a scene; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: A camera breaks the conventions.
    """
    relative = Path(ref.location["path"])
    files = frame_files(root, relative, params)
    sources: list[SourceFile] = []
    cameras = [parse_cam(read_source(root, item.cam, sources), str(root / item.cam)) for item in files]
    size = _first_size(root, files[0])
    metadata = {
        "release": release_of(ref.id),
        "images": params.images,
        "depth_sweep": [camera.sweep for camera in cameras],
        "covisibility": _covisibility(root, relative / CAMS / PAIRS, files, sources),
    }
    record = _record(root, ref, params, files, cameras, size, metadata)
    return SceneStream(record, _frames(root, files, size, sources), sources)


def _first_size(root: Path, files: FrameFiles) -> Size:
    # Read again with the frames, and added to the sources there.
    return check_photo(read_source(root, files.image, []), None, str(root / files.image))


def _covisibility(
    root: Path, path: Path, files: Sequence[FrameFiles], sources: list[SourceFile]
) -> dict[str, Any] | None:
    """Turn pair.txt into rows of [frame, score] by frame; ids that have no photo are counted and left out."""
    if not inside(root, path).is_file():
        return None
    rows = parse_pairs(read_source(root, path, sources), str(root / path))
    frame_of = {int(item.name): t for t, item in enumerate(files)}
    named = [rows.get(int(item.name), []) for item in files]
    kept = [[[frame_of[i], score] for i, score in row if i in frame_of] for row in named]
    return {
        "source": "cams/pair.txt",
        "rows": kept,
        "rows_missing": sum(number not in rows for number in frame_of),
        "ids_without_photo": len(
            set(rows) - set(frame_of) | {i for row in named for i, _ in row} - set(frame_of)
        ),
    }


def _record(
    root: Path,
    ref: SceneRef,
    params: Params,
    files: Sequence[FrameFiles],
    cameras: Sequence[NativeCamera],
    size: Size,
    metadata: dict[str, Any],
) -> SceneRecord:
    wheres = [str(root / item.cam) for item in files]
    poses = [pose_of(camera, where) for camera, where in zip(cameras, wheres, strict=True)]
    intrinsics = [intrinsics_of(camera, where) for camera, where in zip(cameras, wheres, strict=True)]
    num_frames = len(files)
    numbers = np.arange(num_frames, dtype=np.float64)
    view = ViewRecord(
        size=size,
        times=numbers,
        frame_names=tuple(item.name for item in files),
        intrinsics=np.stack(intrinsics),
        world_from_cam=np.stack([np.full((4, 4), np.nan) if pose is None else pose for pose in poses]),
        pose_is_known=np.array([pose is not None for pose in poses]),
        motion_index=np.arange(num_frames, dtype=np.int64),
        layers={
            "rgb": LayerRecord(size, "jpeg", "uint8", num_channels=3),
            "z_depth": LayerRecord(size, "array", "float32", depth_kind="rendered"),
        },
    )
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale="sfm",
        time_kind="set",
        licence=LICENCE,
        citation=CITATION,
        source_conventions=SOURCE_CONVENTIONS,
        views={VIEW: view},
        motion=static_motion(numbers),
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        metadata=metadata,
    )


def static_motion(times: NDArray[np.float64]) -> MotionRecord:
    """Describe a scene in which nothing moves, on the clock of its frames (T,)."""
    return MotionRecord(
        times=times,
        instance_ids=np.zeros(1, np.uint32),
        instance_names=("scene",),
        instance_motion=np.array([MotionKind.STATIC], np.uint8),
        world_from_instance=np.tile(np.eye(4), (len(times), 1, 1, 1)),
    )


def _frames(
    root: Path, files: Sequence[FrameFiles], size: Size, sources: list[SourceFile]
) -> Iterator[Frame]:
    for t, item in enumerate(files):
        image = read_source(root, item.image, sources)
        check_photo(image, size, str(root / item.image))
        stored = parse_pfm(read_source(root, item.depth, sources), str(root / item.depth))
        if stored.shape != size[::-1]:
            raise FormatError(
                "A depth map has another size than its photo.",
                where=root / item.depth,
                expected=f"{size} (W, H)",
                found=stored.shape[::-1],
            )
        yield Frame(VIEW, t, {"rgb": image, "z_depth": z_from_pfm(stored)})
