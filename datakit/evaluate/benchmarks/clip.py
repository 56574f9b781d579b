"""A clip of a benchmark as plain data, whatever files it came from. Clips are opened one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
QueryMode = Literal["first", "strided"]


@dataclass(frozen=True)
class TruthTracks:
    """N tracks over the T frames of a clip.

    Attributes:
        query_xyt: (N, 3) float64: x, y in pixels of the original images (corner origin), frame index.
        visible: (N, T) bool.
        xyz_cam: (N, T, 3) float64 in the camera of each frame, NaN unknown; None for 2D benchmarks.
        uv: (N, T, 2) float64 px of the original images, corner origin, NaN unknown; None for 3D benchmarks.
        query_mode: Of TAP-Vid: "first" or "strided"; it says which frames are scored.
    """

    query_xyt: Float
    visible: Bool
    xyz_cam: Float | None = None
    uv: Float | None = None
    query_mode: QueryMode = "first"


@dataclass(frozen=True)
class BenchmarkClip:
    """One clip with its truth. OpenCV axes, corner-origin pixels, metres where the benchmark has them.

    Attributes:
        name: `source/clip`, the name of its prediction.
        source: Part of the benchmark that is averaged by itself ("adt", "drivetrack", ...).
        num_frames: T.
        size: (W, H) of the colour images.
        rgb: Reads (H, W, 3) uint8 of a frame; None where the benchmark was unpacked without images.
        times_s: (T,) float64; frame numbers where the benchmark has no clock.
        frame_names: T native names.
        intrinsics: (T, 3, 3) float64 of the colour images; None where the benchmark gives none.
        depth_intrinsics: (T, 3, 3) of the depth grid; None where there is no depth or no camera.
        world_from_cam: (T, 4, 4) float64, NaN where a frame has no pose; None without poses.
        z_depth: Reads (h, w) float32 of a frame, NaN unknown; None without depth.
        tracks: Truth of point tracks, or None.
        official_world_from_cam: Poses as the official preparation pairs them, where that differs; else None.
        notes: What to know about this clip's truth, for people.
    """

    name: str
    source: str
    num_frames: int
    size: tuple[int, int]
    rgb: Callable[[int], NDArray[np.uint8]] | None
    times_s: Float
    frame_names: tuple[str, ...]
    intrinsics: Float | None = None
    depth_intrinsics: Float | None = None
    world_from_cam: Float | None = None
    z_depth: Callable[[int], NDArray[np.float32]] | None = None
    tracks: TruthTracks | None = None
    official_world_from_cam: Float | None = None
    notes: tuple[str, ...] = ()

    def depth_shape(self) -> tuple[int, int]:
        """Return (h, w) of the depth; read from frame 0.

        Raises:
            UsageError: The clip has no depth.
        """
        if self.z_depth is None:
            raise UsageError("This clip has no depth", where=self.name)
        height, width = self.z_depth(0).shape
        return height, width

    def depth_stack(self) -> NDArray[np.float32]:
        """Return (T, h, w) float32 depth of all frames, NaN unknown.

        Raises:
            UsageError: The clip has no depth.
        """
        if self.z_depth is None:
            raise UsageError("This clip has no depth", where=self.name)
        return np.stack([self.z_depth(t) for t in range(self.num_frames)])


@dataclass(frozen=True)
class Entry:
    """A clip that is there but was not read yet.

    Attributes:
        name: As `BenchmarkClip.name`.
        source: As `BenchmarkClip.source`.
        files: The files that its truth comes from; their sizes and times say whether a result is still good.
        load: Reads it.
    """

    name: str
    source: str
    files: tuple[Path, ...]
    load: Callable[[], BenchmarkClip]


@dataclass(frozen=True)
class Benchmark:
    """A folder of clips.

    Attributes:
        dataset: Which reader read it: one of `benchmarks.DATASETS`.
        entries: The clips, in order.
        missing: Names that the list asked for and the folder does not have.
        settings: How the folder was read, for the results.
    """

    dataset: str
    entries: tuple[Entry, ...]
    missing: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """How a benchmark's folder is read.

    Attributes:
        names: Only clips of these names (with or without their source); None for the list's or all.
        clip_list: Name of a list of the reader ("14", "18", "23" of Sintel); None for its default.
        max_tracks: Most tracks drawn of a scene of ours.
        seed: Of that draw.
        query_mode: Of TAP-Vid: "first" or "strided".
    """

    names: tuple[str, ...] | None = None
    clip_list: str | None = None
    max_tracks: int = 256
    seed: int = 0
    query_mode: str = "first"
