"""Covisibility beside its scene: `<scene>.covisibility.safetensors`, tied to the scene's bytes by their hash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from datakit.errors import ConventionError, FormatError

from .measure import Covisibility

SUFFIX = ".covisibility.safetensors"
_FORMAT, _VERSION = "datakit-covisibility", "1"
_TENSORS = {"view": np.int32, "frame": np.int32, "overlap": np.float32}


def write_covisibility(path: str | Path, covisibility: Covisibility, scene_sha256: str) -> None:
    """Write overlaps so that a reader sees the old file or the new one; same input, same bytes.

    Args:
        path: Where to; by custom the scene's file with `SUFFIX` in place of its own.
        covisibility: What was measured.
        scene_sha256: Hash of the scene file that was measured.
    """
    path = Path(path)
    tensors = {name: np.ascontiguousarray(getattr(covisibility, name)) for name in _TENSORS}
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "scene_sha256": scene_sha256,
        "views": json.dumps(list(covisibility.views)),
        "params": json.dumps(dict(covisibility.params), sort_keys=True),
    }
    # safetensors writes metadata in the order of a hash table that changes from run to run; one entry has one order.
    packed = {"datakit": json.dumps(metadata, sort_keys=True)}
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(safetensors.numpy.save(tensors, packed))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_covisibility(path: str | Path, scene_sha256: str | None = None) -> Covisibility:
    """Read overlaps.

    Args:
        path: A file of `write_covisibility`.
        scene_sha256: Hash of the scene file they must belong to; None takes any.

    Raises:
        FormatError: No such file, or damaged.
        ConventionError: They were measured on another scene file.
    """
    where = str(path)
    try:
        with safe_open(where, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})["datakit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        found = Covisibility(
            tuple(str(name) for name in json.loads(metadata["views"])),
            params=json.loads(metadata["params"]),
            **tensors,
        )
        of_scene = metadata["scene_sha256"]
        is_known = (metadata["format"], metadata["version"]) == (_FORMAT, _VERSION)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            "Covisibility cannot be read.", where=where, found=error, mend="measure it again"
        ) from error
    count = len(found.view) if found.view.ndim else -1
    shapes = {"view": (count,), "frame": (count,), "overlap": (count, count)}
    wrong = [n for n, dtype in _TENSORS.items() if (tensors[n].shape, tensors[n].dtype) != (shapes[n], dtype)]
    if not is_known or wrong or (count and not 0 <= found.view.min() <= found.view.max() < len(found.views)):
        raise FormatError(
            "Not a covisibility file of this version.", where=where, found=wrong, mend="measure it again"
        )
    if scene_sha256 is not None and of_scene != scene_sha256:
        raise ConventionError(
            "Covisibility was measured on another scene file.",
            where=where,
            expected=scene_sha256,
            found=of_scene,
            mend="measure it again",
        )
    return found
