"""Which photos without an order in time show the same surfaces: for the windows of a set, and within a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.covisibility import (
    Covisibility,
    CovisibilityParams,
    PhotoWindow,
    measure_covisibility,
    pack_overlap,
    read_covisibility,
    split_photos,
)
from datakit.errors import QualityError
from datakit.scene import Scene

from .params import PackParams
from .windows import windows

#: Overlap from which two photos count as showing one place: what the stream asks for where it is told nothing else
#: (`AugmentParams.set_overlap`). Links weaker than what samples are drawn by would only look like links.
_LEAST_OVERLAP = 0.1
#: Points that windows are planned by, of all photos together: so the cost grows with the photos, not their square.
#: 13 for each photo of the longest stretch.
_PLAN_POINTS = 1 << 16
#: Longer sets are planned in stretches of file order, which bounds the matrices: some 20 bytes a pair of photos.
_MOST_PHOTOS = 5000


def set_windows(
    scene: Scene, view: str, params: PackParams, measured: Path | None, scene_sha256: str
) -> tuple[str, list[PhotoWindow]]:
    """Choose the photos of each window of a view that is longer than one window.

    Args:
        scene: Open scene, a set of photos.
        view: Name of the view.
        params: Of the set; a stride above the window's length counts as that length, so that no photo is left out.
        measured: The scene's covisibility file; None where there is none.
        scene_sha256: Hash of the scene file.

    Returns:
        What they were chosen by: "file" (the covisibility file), else "pairs" (the list of pairs that came with the
        photos), else "measured", or "order" (file order) where nothing tells overlaps; and the windows.

    Raises:
        FormatError: The covisibility file or a frame is damaged.
        ConventionError: Covisibility was measured on another scene file.
    """
    num_photos = scene.views[view].num_frames
    stride = min(params.window_stride, params.clip_frames)
    bounds = np.linspace(0, num_photos, -(-num_photos // _MOST_PHOTOS) + 1).round().astype(int).tolist()
    out: list[PhotoWindow] = []
    found_by = "order"
    for first, end in zip(bounds, bounds[1:], strict=False):
        by, links = _links(scene, view, range(first, end), params, measured, scene_sha256)
        if links is None or not links.any():
            found = [
                (start, tuple(range(start, start + count)))
                for start, count in windows(end - first, params.clip_frames, stride)
            ]
        else:
            found_by = by
            found = split_photos(links, params.clip_frames, stride)
        out += [(first + start, tuple(first + t for t in photos)) for start, photos in found]
    return found_by, out


def _links(
    scene: Scene, view: str, photos: range, params: PackParams, measured: Path | None, scene_sha256: str
) -> tuple[str, NDArray[np.uint8] | None]:
    if measured is not None:
        return "file", _strong(_of_window(read_covisibility(measured, scene_sha256), view, photos))
    if len(scene.views) == 1:
        pairs = pair_links(scene.metadata.get("covisibility"), scene.views[view].num_frames)
        if pairs is not None:
            return "pairs", pairs[photos.start : photos.stop, photos.start : photos.stop]
    if params.covisibility_points == 0:
        return "order", None
    points = min(params.covisibility_points, _PLAN_POINTS // len(photos))
    how = CovisibilityParams(points=points, max_frames=len(photos))
    try:
        found = measure_covisibility(scene, how, [(view, t) for t in photos])
    except QualityError:  # no depth, no points with visibility
        return "order", None
    return "measured", _strong(_of_window(found, view, photos))


def _strong(overlap: NDArray[np.float32]) -> NDArray[np.uint8]:
    both = np.minimum(overlap, overlap.T)
    np.nan_to_num(both, copy=False, nan=0.0)
    np.fill_diagonal(both, 0)
    np.clip(both, 0, 1, out=both)
    both *= 255
    codes = both.astype(np.uint8)  # rounds down, as `pack_overlap`
    codes[codes < _LEAST_OVERLAP * 255] = 0
    return codes


def pair_links(listed: Any, num_photos: int) -> NDArray[np.uint8] | None:
    """Read pairs that came with the photos as weights.

    Args:
        listed: {"rows": for each photo [[other photo, score], ...]}, as the converter of BlendedMVS keeps pair.txt
            in a scene's `metadata.covisibility`. A photo lists its best partners only, so one listing is enough.
        num_photos: How many rows there must be.

    Returns:
        (F, F), the better score of both directions as a share of the best of all in 1..255, 0 for none; None where
        there is no such list or no pair in it.
    """
    rows = listed.get("rows") if isinstance(listed, Mapping) else None
    if not isinstance(rows, list) or len(rows) != num_photos:
        return None
    try:
        flat = [(t, *entry) for t, row in enumerate(rows) for entry in row]
        table = np.array(flat, np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    photo, other, score = table[np.isfinite(table).all(axis=1) & (table[:, 2] > 0)].T
    is_photo = (other >= 0) & (other < num_photos) & (other == np.floor(other)) & (other != photo)
    if not is_photo.any():
        return None
    codes = np.clip(np.round(255 * score[is_photo] / score[is_photo].max()), 1, 255).astype(np.uint8)
    out = np.zeros((num_photos, num_photos), np.uint8)
    np.maximum.at(out, (photo[is_photo].astype(np.int64), other[is_photo].astype(np.int64)), codes)
    return np.maximum(out, out.T)


def window_overlap(
    scene: Scene, view: str, frames: Sequence[int], measured: Path | None, scene_sha256: str, points: int
) -> tuple[NDArray[np.uint8], Mapping[str, Any]] | None:
    """Find the overlaps of a clip's photos; a scene's covisibility file and measuring here agree.

    Args:
        scene: Open scene.
        view: Name of the view.
        frames: Of that view, ascending.
        measured: The scene's covisibility file; None measures.
        scene_sha256: Hash of the scene file.
        points: `PackParams.covisibility_points`.

    Returns:
        Codes (`pack_overlap`) and how they were measured; None for a sequence, a single photo, or where nothing
        tells overlaps. A photo that the file leaves out overlaps with none.

    Raises:
        FormatError: The covisibility file is damaged.
        ConventionError: It was measured on another scene file.
    """
    if scene.time_kind != "set" or len(frames) < 2:
        return None
    if measured is not None:
        found = read_covisibility(measured, scene_sha256)
    elif points == 0:
        return None
    else:
        try:
            params = CovisibilityParams(points=points)
            found = measure_covisibility(scene, params, [(view, t) for t in frames])
        except QualityError:  # no depth, no points with visibility: said in the ledger of what is streamed
            return None
    return pack_overlap(_of_window(found, view, frames)), found.params


def _of_window(found: Covisibility, view: str, frames: Sequence[int]) -> NDArray[np.float32]:
    out = np.full((len(frames), len(frames)), np.nan, np.float32)
    if view not in found.views:
        return out
    photos = np.asarray(frames)
    rows = np.flatnonzero((found.view == found.views.index(view)) & np.isin(found.frame, photos))
    at = np.searchsorted(photos, found.frame[rows])
    out[np.ix_(at, at)] = found.overlap[np.ix_(rows, rows)]
    return out
