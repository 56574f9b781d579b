"""Any COLMAP model with its images, and its dense depth maps where there are some: own posed photos and videos.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World, random_world

from . import discover, reader
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write import FORMS as NATIVE_FORMS
from .write import write_workspaces

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
    """Look at a native tree without converting it: models, their depth, what is missing or damaged."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the models below a root, in sorted order, by file names.

    Raises:
        LayoutError: No model, two of one id, or a path leaves the root.
    """
    return discover.scenes(Path(root), params)


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one model; its images are read as the stream is iterated.

    Raises:
        LayoutError, FormatError, ConventionError, UsageError: See `reader.read`.
    """
    if "suffix" not in ref.location:
        raise UsageError("Not a reference to a COLMAP model.", where=ref.id, found=ref.location)
    return reader.read(Path(root), ref, params)


def make_world(seed: int, *, num_frames: int, size: tuple[int, int], motion: str) -> World:
    """Make a world that a COLMAP model can hold: nothing moves but the camera; "rigid" becomes "static"."""
    motion = "static" if motion == "rigid" else motion
    return random_world(seed, num_frames=num_frames, size=size, motion=motion)


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write analytic worlds as COLMAP workspaces.

    Args:
        worlds: Worlds in which nothing moves.
        out: Folder to fill: one workspace per world, named after it.
        form: One of NATIVE_FORMS.

    Raises:
        UsageError: Unknown form.
        ConventionError: A world moves.
    """
    if form not in NATIVE_FORMS:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
    write_workspaces(worlds, Path(out), form)
