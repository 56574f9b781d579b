"""Kubric: worker output folders and MOVi records (TFDS), read without TensorFlow.

The verbs of `datakit.convert.api.Converter`. Layouts, conventions and known defects are in `card.CARD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datakit.convert.api import Probe, SceneRef
from datakit.errors import UsageError
from datakit.scene.records import SceneStream
from datakit.worlds import World

from . import discover, movi, worker
from .card import CARD, VERSION
from .params import Params
from .probe import probe as _probe
from .write_tfds import FORMS as _TFDS_FORMS
from .write_tfds import write_tfds
from .write_worker import write_worker

NATIVE_FORMS = ("worker", *_TFDS_FORMS)

__all__ = ["CARD", "NATIVE_FORMS", "VERSION", "Params", "probe", "read", "scenes", "write_native"]


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it: forms, clips per split, what is missing or truncated."""
    return _probe(Path(root))


def scenes(root: Path, params: Params) -> Iterator[SceneRef]:
    """List the clips below a root, in sorted order, by file names and record headers only.

    Raises:
        LayoutError: No Kubric data, a shard is missing, or a path leaves the root.
        FormatError: A shard is truncated.
    """
    return discover.scenes(Path(root), params)


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one clip; its frames are read as the stream is iterated.

    Raises:
        LayoutError, FormatError, ConventionError: See `worker.read` and `movi.read`.
    """
    reader = {"worker": worker.read, "tfds": movi.read}.get(ref.location.get("form", ""))
    if reader is None:
        raise UsageError("Not a reference to a Kubric scene.", where=ref.id, found=ref.location)
    return reader(Path(root), ref, params)


def write_native(worlds: Iterator[World], out: Path, form: str) -> None:
    """Write analytic worlds in Kubric's on-disk layout.

    Args:
        worlds: One-camera worlds of rigid and static things.
        out: Folder to fill: one sub-folder per clip ("worker"), or <set>/<size>/<version> (the TFDS forms).
        form: One of NATIVE_FORMS; "tfds-half" and "tfds-quarter" are downscaled configs.

    Raises:
        UsageError: Unknown form.
        ConventionError: The world holds what Kubric cannot express.
    """
    if form == "worker":
        write_worker(worlds, Path(out))
    elif form in _TFDS_FORMS:
        write_tfds(worlds, Path(out), form)
    else:
        raise UsageError("Unknown native form.", expected=NATIVE_FORMS, found=form)
