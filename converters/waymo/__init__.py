"""Waymo Open Dataset, Perception: v1 TFRecords and v2 parquet, read without TensorFlow.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World, driving_world

from . import discover, reading
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write_v1 import write_v1
from .write_v2 import write_v2

_WRITERS = {"v1": write_v1, "v2": write_v2}
NATIVE_FORMS = tuple(_WRITERS)

__all__ = [
    "CARD",
    "NATIVE_FORMS",
    "VERSION",
    "Params",
    "make_world",
    "probe",
    "read",
    "scenes",
    "write_native",
]


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it: forms, segments per split, what is missing or truncated."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the segments below a root, in sorted order, by names and sizes only.

    Raises:
        LayoutError: No segments, two of one name, or a path leaves the root.
    """
    return discover.scenes(Path(root))


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one segment; see `reading.read`."""
    return reading.read(Path(root), ref, params)


def make_world(seed: int, *, num_frames: int, size: tuple[int, int], motion: str) -> World:
    """Make the kind of world that this dataset is about: a street seen from a vehicle.

    `motion` is not used: there always is traffic.
    """
    return driving_world(seed, num_frames=num_frames, size=size)


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write driving worlds in Waymo's on-disk layout.

    Args:
        worlds: From `make_world`.
        out: Folder to fill.
        form: "v1" or "v2".

    Raises:
        UsageError: Unknown form, or pyarrow is missing (v2).
        ConventionError: A world without a vehicle and its five cameras.
    """
    if form not in _WRITERS:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
    _WRITERS[form](worlds, Path(out))
