"""Reading native files: never outside the root, always hashed, with errors that name the place."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError, FormatError, LayoutError
from datakit.scene.codecs import MAX_PIXELS
from datakit.scene.records import SourceFile

_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._-]+")


def identifier(text: str) -> str:
    """Make a scene id of a native name: letters, digits, "._-", not starting with punctuation."""
    return _NOT_IN_ID.sub("_", text).lstrip("._-") or "clip"


def check_root(root: Path) -> None:
    """Check that a dataset's root can be searched.

    Raises:
        LayoutError: It is no folder.
    """
    if not root.is_dir():
        raise LayoutError(
            "The dataset's root is not a folder.",
            where=root,
            expected="a folder",
            found="a file" if root.exists() else "nothing",
            mend="Name the folder that holds the files; what is in it is found.",
        )


def inside(root: Path, relative: str | Path) -> Path:
    """Join a path that came from a listing, a template or a scene reference to its root.

    Args:
        root: The dataset's root as the user gave it.
        relative: Path below it.

    Returns:
        root / relative, not resolved.

    Raises:
        LayoutError: It is absolute, climbs with "..", or is a link that leaves the root.
    """
    path = root / relative
    rel = Path(relative)
    climbs = rel.is_absolute() or ".." in rel.parts
    # Where no part below the root is a link, there is nothing to resolve; this is asked for every file of every frame.
    if climbs or (_has_link(root, rel) and not path.resolve().is_relative_to(root.resolve())):
        raise LayoutError(
            "A path leaves the dataset's root.",
            where=path,
            expected=f"a file below {root}",
            found=_resolved(path),
            mend="Copy the file into the tree, or start from a root that holds it.",
        )
    return path


def has_file(root: Path, relative: str | Path) -> bool:
    """Tell whether a file is there; a name that no file can have is of none.

    Raises:
        LayoutError: As `inside`.
    """
    return os.path.isfile(inside(root, relative))  # Path.is_file raises for a name that is too long


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError):  # a NUL, or what is no Unicode
        return path


def _has_link(root: Path, relative: Path) -> bool:
    at = os.fspath(root)
    for part in relative.parts:
        at = os.path.join(at, part)
        if os.path.islink(at):
            return True
    return False


def read_source(root: Path, relative: str | Path, sources: list[SourceFile]) -> bytes:
    """Read a whole native file and add it to the sources.

    Raises:
        LayoutError: It is missing, not a file, or outside the root.
    """
    path = inside(root, relative)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as err:  # a NUL, or what is no Unicode, is in no name
        raise LayoutError(
            "A file of the clip cannot be read.",
            where=path,
            expected="a readable file",
            found=getattr(err, "strerror", None) or err,
        ) from err
    sources.append(SourceFile(Path(relative).as_posix(), len(data), hashlib.sha256(data).hexdigest()))
    return data


def field(value: dict[str, Any], name: str, where: str | Path) -> Any:
    """Take a required field of a JSON object.

    Raises:
        FormatError: It is missing.
    """
    if not isinstance(value, dict) or name not in value:
        keys = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise FormatError("A required field is missing.", where=where, expected=name, found=keys)
    return value[name]


def check_size(width: float, height: float, what: str, where: Path | str) -> tuple[int, int]:
    """Check a size that a file states, before anything is made of that size.

    Args:
        width: Pixels.
        height: Pixels.
        what: What has it, for errors: "A camera".
        where: File and field, for errors.

    Returns:
        (W, H).

    Raises:
        FormatError: Zero, no whole number, or larger than any photo.
    """
    if not (min(width, height) >= 1 and width % 1 == height % 1 == 0 and width * height <= MAX_PIXELS):
        raise FormatError(
            f"{what} has an absurd size.", where=where, expected="a photo's (W, H)", found=(width, height)
        )
    return int(width), int(height)


def floats(value: Any, shape: tuple[int, ...] | None, where: str) -> NDArray[np.float64]:
    """Turn a JSON, TFRecord, protobuf or Parquet value into float64; null becomes NaN.

    Args:
        value: Nested lists or an array.
        shape: Expected shape; None for any.
        where: File and field, for errors.

    Returns:
        Of `shape`, or of the value's own.

    Raises:
        FormatError: Something in it is no number, or another shape.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise FormatError(
            "Not an array of numbers.",
            where=where,
            expected="numbers" if shape is None else f"shape {shape}",
            found=err,
        ) from err
    if shape is not None and array.shape != shape:
        raise FormatError("An array has the wrong shape.", where=where, expected=shape, found=array.shape)
    return array


def numbers(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """Turn a JSON or TFRecord value into a finite float64 array of a known shape.

    Args:
        value: Nested lists or an array.
        shape: Expected shape; the first axis is the frame where there are several axes.
        where: File and field, for errors.

    Returns:
        float64 array of that shape.

    Raises:
        FormatError: Not numbers, or another shape.
        ConventionError: NaN or infinite; the error names the frame.
    """
    array = floats(value, shape, where)
    if not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0]
        place = f"{where}, frame {first[0]}" if array.ndim > 1 else where
        raise ConventionError(
            "A value is not finite.", where=place, expected="finite numbers", found=array[tuple(first)]
        )
    return array
