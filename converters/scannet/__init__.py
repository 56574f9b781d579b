"""ScanNet v2: .sens files, exported folders (Python and C++ tool), scannet_frames_25k.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World, random_world

from . import discover, exported, sens
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write_exported import write_cpp_export, write_frames_25k, write_python_export
from .write_sens import write_sens_tree

_WRITERS = {
    "sens": write_sens_tree,
    "export": write_python_export,
    "export-cpp": write_cpp_export,
    "frames-25k": write_frames_25k,
}
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
    """Look at a native tree without converting it: forms, scans per split, what is missing or truncated."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the scans below a root, in sorted order, by file names and the heads of .sens files.

    Raises:
        LayoutError: No ScanNet scans, a scan twice, an export with files missing, or a path leaves the root.
    """
    return discover.scenes(Path(root))


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one scan; its frames are read as the stream is iterated.

    Raises:
        LayoutError, FormatError, ConventionError: See `sens.read` and `exported.read`.
    """
    form = ref.location.get("form", "")
    if form not in NATIVE_FORMS:
        raise UsageError("Not a reference to a ScanNet scan.", where=ref.id, found=ref.location)
    return (sens if form == "sens" else exported).read(Path(root), ref, params)


def make_world(seed: int, *, num_frames: int, size: tuple[int, int], motion: str) -> World:
    """Make a world that ScanNet can hold: nothing moves but the camera; "rigid" becomes "static"."""
    motion = "static" if motion == "rigid" else motion
    return random_world(seed, num_frames=num_frames, size=size, motion=motion)


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write analytic worlds in one of ScanNet's on-disk layouts.

    Args:
        worlds: One-camera worlds in which nothing moves.
        out: Folder to fill.
        form: One of NATIVE_FORMS.

    Raises:
        UsageError: Unknown form.
        ConventionError: The world holds what ScanNet cannot express.
    """
    if form not in _WRITERS:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
    _WRITERS[form](worlds, Path(out))
