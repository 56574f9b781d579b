"""TAP-Vid 2D: `.pkl` files of {"points", "occluded", "video"}, read without unpickling (see `pickles`).

Points are in [0, 1] of the image's width and height, from its outer corner (tapnet c2cbab8, tapvid/README).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError, LayoutError, UsageError
from datakit.scene import decode_image

from ..tracks2d import queries_first, queries_strided
from .clip import Benchmark, BenchmarkClip, Entry, QueryMode, ReadOptions, TruthTracks
from .files import as_rgb, read_bytes
from .lists import choose
from .pickles import read_pickle

QUERY_MODES: tuple[QueryMode, ...] = ("first", "strided")


def read_tapvid2d(root: Path, options: ReadOptions) -> Benchmark:
    """List the videos of a TAP-Vid `.pkl` file, or of all in a folder.

    Args:
        root: The file or the folder.
        options: `query_mode`; names, if only some are wanted.

    Raises:
        LayoutError: No `.pkl` there.
        FormatError: One is no TAP-Vid file.
        UsageError: No such query mode.
    """
    mode = next((mode for mode in QUERY_MODES if mode == options.query_mode), None)
    if mode is None:
        raise UsageError("Unknown query mode", expected=" or ".join(QUERY_MODES), found=options.query_mode)
    files = [root] if root.is_file() else sorted(root.glob("*.pkl"))
    if not files:
        raise LayoutError("No TAP-Vid file here", where=root, expected="*.pkl")
    entries: list[Entry] = []
    missing: list[str] = []
    for path in files:
        source = path.stem
        names, gone = choose(options.names, _videos(path), source)
        missing += gone
        entries += [
            Entry(f"{source}/{name}", source, (path,), partial(_load, path, name, mode)) for name in names
        ]
    return Benchmark("tapvid2d", tuple(entries), tuple(missing), {"query_mode": options.query_mode})


# A file holds many videos; one is kept so that going through it in order reads it once.
@lru_cache(maxsize=1)
def _parsed(path: Path, stamp: tuple[int, int]) -> dict[str, Mapping[str, Any]]:
    value = read_pickle(read_bytes(path), str(path))
    if isinstance(value, list):
        value = {f"{i:04d}": video for i, video in enumerate(value)}
    keys = {"points", "occluded", "video"}
    if not isinstance(value, dict) or not all(isinstance(v, dict) and keys <= set(v) for v in value.values()):
        raise FormatError("Not a TAP-Vid file", where=path, expected=f"videos with {sorted(keys)}")
    return {str(name): video for name, video in value.items()}


def _videos(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        status = path.stat()
    except OSError as error:
        raise LayoutError("A file cannot be read", where=path, found=error.strerror) from error
    return _parsed(path, (status.st_size, status.st_mtime_ns))


def _load(path: Path, name: str, mode: QueryMode) -> BenchmarkClip:
    video = _videos(path)[name]
    where = f"{path}, {name}"
    rgb, count, size = _frames(video["video"], where)
    points, occluded = np.asarray(video["points"]), np.asarray(video["occluded"])
    if points.ndim != 3 or points.shape[1:] != (count, 2) or occluded.shape != points.shape[:2]:
        raise FormatError(
            "Tracks do not fit the video",
            where=where,
            expected=f"points (N, {count}, 2), occluded (N, {count})",
            found=(points.shape, occluded.shape),
        )
    uv, seen = points.astype(np.float64) * np.array(size), ~occluded.astype(bool)
    asked, tracks = (queries_first if mode == "first" else queries_strided)(uv, seen)
    queries = np.asarray(asked[:, [2, 1, 0]], np.float64)  # t, y, x to x, y, t
    return BenchmarkClip(
        name=f"{path.stem}/{name}",
        source=path.stem,
        num_frames=count,
        size=size,
        rgb=rgb,
        times_s=np.arange(count, dtype=np.float64),
        frame_names=tuple(str(t) for t in range(count)),
        tracks=TruthTracks(queries, seen[tracks], uv=uv[tracks], query_mode=mode),
    )


def _frames(video: Any, where: str) -> tuple[Callable[[int], NDArray[np.uint8]], int, tuple[int, int]]:
    """Reader, number and (W, H) of a video: an array of frames, or a list of their JPEG bytes (Kinetics)."""
    if isinstance(video, np.ndarray) and video.ndim == 4 and video.shape[3] == 3 and video.dtype == np.uint8:
        array = video
        return (lambda t: array[t]), len(array), (array.shape[2], array.shape[1])
    if isinstance(video, list) and video and all(isinstance(frame, bytes) for frame in video):
        images: list[bytes] = video

        def read(t: int) -> NDArray[np.uint8]:
            return as_rgb(decode_image(images[t], f"{where}, frame {t}"), f"{where}, frame {t}")

        first = read(0)
        return read, len(images), (first.shape[1], first.shape[0])
    found = getattr(video, "shape", type(video).__name__)
    raise FormatError(
        "Not a video", where=where, expected="(T, H, W, 3) uint8, or JPEG bytes a frame", found=found
    )
