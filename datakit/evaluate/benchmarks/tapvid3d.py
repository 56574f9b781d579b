"""TAPVid-3D and WorldTrack `.npz` files: one clip each, in folders by source.

K and `queries_xyt` are used as they are: the benchmark's queries are its points projected by its own K, so both share
one pixel origin; TAP-Vid's is the outer corner of the first pixel (tapnet c2cbab8, tapvid/README), which is ours.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError
from datakit.scene import check_jpeg, decode_image

from .clip import Benchmark, BenchmarkClip, Entry, Float, ReadOptions, TruthTracks
from .files import as_rgb, inside
from .lists import choose
from .npz import Npz, open_npz

#: The code's names first, those of its README after them.
_TRACKS, _VISIBLE, _K = ("tracks_XYZ", "tracks_xyz"), ("visibility", "visible"), ("fx_fy_cx_cy", "intrinsics")


def read_tapvid3d(root: Path, options: ReadOptions) -> Benchmark:
    """List the clips of a TAPVid-3D folder.

    Args:
        root: Holds `<source>/*.npz` (adt, drivetrack, pstudio; or WorldTrack's folders), or the `.npz` files of one.
        options: Names choose a split (see `lists.read_list`).

    Raises:
        LayoutError: No `.npz` in it.
    """
    sources = [path for path in sorted(root.iterdir()) if path.is_dir() and next(path.glob("*.npz"), None)]
    if next(root.glob("*.npz"), None) is not None:
        sources = [root]
    if not sources:
        raise LayoutError("No TAPVid-3D clip here", where=root, expected="<source>/<clip>.npz")
    entries: list[Entry] = []
    missing: list[str] = []
    for folder in sources:
        source = folder.resolve().name
        names, gone = choose(options.names, (path.stem for path in folder.glob("*.npz")), source)
        missing += gone
        for name in names:
            path = inside(root, folder.relative_to(root) / f"{name}.npz")
            entries.append(Entry(f"{source}/{name}", source, (path,), partial(_load, path, source, name)))
    if options.names is not None:
        # A name without a source is missing only if no source has it.
        found = {entry.name.partition("/")[2] for entry in entries}
        missing = [name for name in dict.fromkeys(missing) if name.partition("/")[2] not in found]
    return Benchmark(
        "tapvid3d", tuple(entries), tuple(missing), {"sources": [p.resolve().name for p in sources]}
    )


def _load(path: Path, source: str, name: str) -> BenchmarkClip:
    with open_npz(path) as npz:
        images = npz.byte_strings("images_jpeg_bytes")
        tracks = _numbers(npz, _TRACKS, (None, None, 3))
        visible = _numbers(npz, _VISIBLE, tracks.shape[:2]) > 0.5
        queries = _numbers(npz, ("queries_xyt",), (tracks.shape[1], 3))
        fx, fy, cx, cy = _numbers(npz, _K, (4,))
        w2c = None
        if "extrinsics_w2c" in npz:
            w2c = _numbers(npz, ("extrinsics_w2c",), (len(tracks), 4, 4))
    count = len(tracks)
    if len(images) != count:
        raise FormatError("Images and tracks differ in number", where=path, expected=count, found=len(images))
    frames = queries[:, 2]
    if not (np.isfinite(queries).all() and (frames >= 0).all() and (frames <= count - 1).all()):
        raise FormatError("A query lies outside the clip", where=path, expected=f"frames 0 to {count - 1}")
    poses, notes = _poses(w2c, source, count, path)
    return BenchmarkClip(
        name=f"{source}/{name}",
        source=source,
        num_frames=count,
        size=check_jpeg(images[0], f"{path}, frame 0"),
        rgb=lambda t: as_rgb(decode_image(images[t], f"{path}, frame {t}"), f"{path}, frame {t}"),
        times_s=np.arange(count, dtype=np.float64),
        frame_names=tuple(str(t) for t in range(count)),
        intrinsics=np.tile(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), (count, 1, 1)),
        world_from_cam=poses,
        tracks=TruthTracks(queries, visible.T.copy(), tracks.transpose(1, 0, 2).copy()),
        notes=notes,
    )


def _poses(w2c: Float | None, source: str, count: int, path: Path) -> tuple[Float | None, tuple[str, ...]]:
    if w2c is not None:
        if not g.is_rigid(w2c, 1e-3).all():
            raise FormatError("A camera is no rigid motion", where=f"{path}, extrinsics_w2c")
        return np.asarray(np.linalg.inv(w2c), np.float64), ()
    if source.lower().startswith("pstudio"):
        return np.tile(np.eye(4), (count, 1, 1)), (
            "no extrinsics_w2c: Panoptic Studio's cameras stand still",
        )
    return None, ("no extrinsics_w2c: nothing can be measured in world coordinates",)


def _numbers(npz: Npz, names: tuple[str, ...], shape: tuple[int | None, ...]) -> Float:
    """Read the first array of these names that is there, as float64 of a known shape (None: any size)."""
    name = next((each for each in names if each in npz), names[0])
    array = npz.array(name)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "biuf" or 0 in array.shape[:1]:
        raise FormatError(
            "An array has the wrong shape",
            where=f"{npz.path}, {name}",
            expected=tuple("any" if n is None else n for n in shape),
            found=(array.shape, str(array.dtype)),
        )
    return array.astype(np.float64)
