"""Dynamic Replica (v2): stereo videos of deforming people and animals, with trajectories of their mesh vertices.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World, random_world

from . import discover, reading
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write import write_tree

NATIVE_FORMS = ("split", "flat")

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
    """Look at a native tree without converting it: layout, sequences per split, what is missing."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the sequences below a root whose folders are there, in sorted order.

    Raises:
        LayoutError: No annotation file, two sequences of one name, or a path leaves the root.
        FormatError: Annotation files that share a folder cannot be read.
    """
    return discover.scenes(Path(root))


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one sequence; see `reading.read`."""
    return reading.read(Path(root), ref, params)


def make_world(seed: int, *, num_frames: int, size: tuple[int, int], motion: str) -> World:
    """Make a world for two eyes, with a zooming lens whose axis is off centre; "rigid" becomes "mixed"."""
    motion = "mixed" if motion == "rigid" else motion
    return random_world(
        seed, num_frames=num_frames, size=size, motion=motion, num_views=2, fps=30.0, lens="general"
    )


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write analytic worlds in Dynamic Replica's on-disk layout.

    Args:
        worlds: Of two views, "camera" and "camera_1".
        out: Folder to fill.
        form: "split" (valid/...) or "flat".

    Raises:
        UsageError: Unknown form, or torch is not installed.
        ConventionError: A world without a stereo pair.
    """
    if form not in NATIVE_FORMS:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
    write_tree(worlds, Path(out), form)
