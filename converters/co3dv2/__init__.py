"""CO3Dv2: object-centric phone videos with poses and depth from structure from motion.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World, random_world

from . import discover, scene
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write import FORMS as _FORMS
from .write import write_release

NATIVE_FORMS = tuple(_FORMS)

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
    """Look at a native tree without converting it: which part of the release, what is missing."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the sequences below a root, in sorted order, by their annotations and their files' names and sizes.

    Raises:
        LayoutError: No categories or no sequences, version 1, or a path leaves the root.
        FormatError: Damaged annotations or set lists.
        UsageError: An unknown category.
    """
    return discover.scenes(Path(root), params)


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one scene; its frames are read as the stream is iterated.

    Raises:
        LayoutError, FormatError, ConventionError, QualityError: See `scene.read`.
    """
    if "spans" not in ref.location:
        raise UsageError("Not a reference to a CO3Dv2 sequence.", where=ref.id, found=ref.location)
    return scene.read(Path(root), ref, params)


def make_world(seed: int, *, num_frames: int, size: tuple[int, int], motion: str) -> World:
    """Make a world that CO3Dv2 can hold: nothing moves but the camera; "rigid" becomes "static"."""
    motion = "static" if motion == "rigid" else motion
    return random_world(seed, num_frames=num_frames, size=size, motion=motion)


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write analytic worlds in CO3Dv2's on-disk layout.

    Args:
        worlds: One-camera worlds in which nothing moves.
        out: Folder to fill.
        form: One of NATIVE_FORMS; "challenge" blanks every third frame.

    Raises:
        UsageError: Unknown form.
        ConventionError: The world holds what CO3Dv2 cannot express.
    """
    if form not in NATIVE_FORMS:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
    write_release(worlds, Path(out), form)
