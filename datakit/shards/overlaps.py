"""Which photos of a clip without an order in time show the same surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.covisibility import (
    Covisibility,
    CovisibilityParams,
    measure_covisibility,
    pack_overlap,
    read_covisibility,
)
from datakit.errors import QualityError
from datakit.scene import Scene


def window_overlap(
    scene: Scene, view: str, frames: range, measured: Path | None, scene_sha256: str, points: int
) -> tuple[NDArray[np.uint8], Mapping[str, Any]] | None:
    """Find the overlaps of a clip's photos; a scene's covisibility file and measuring here agree.

    Args:
        scene: Open scene.
        view: Name of the view.
        frames: Of that view.
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


def _of_window(found: Covisibility, view: str, frames: range) -> NDArray[np.float32]:
    out = np.full((len(frames), len(frames)), np.nan, np.float32)
    if view not in found.views:
        return out
    mine = found.view == found.views.index(view)
    rows = np.flatnonzero(mine & (found.frame >= frames.start) & (found.frame < frames.stop))
    at = found.frame[rows] - frames.start
    out[np.ix_(at, at)] = found.overlap[np.ix_(rows, rows)]
    return out
