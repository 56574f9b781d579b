"""Reading the files of benchmarks: never outside the root, whole or not at all, errors that name the place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError
from datakit.scene import decode_image

Float = NDArray[np.float64]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_DIGITS = re.compile(r"(\d+)")


def inside(root: Path, relative: str | Path) -> Path:
    """Join a path from a listing to its root.

    Raises:
        LayoutError: It is absolute, climbs with "..", or is a link that leaves the root.
    """
    path, rel = root / relative, Path(relative)
    if rel.is_absolute() or ".." in rel.parts or not path.resolve().is_relative_to(root.resolve()):
        raise LayoutError(
            "A path leaves the benchmark's root", where=path, expected=f"below {root}", found=path.resolve()
        )
    return path


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        LayoutError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise LayoutError("A file of the clip cannot be read", where=path, found=error.strerror) from error


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a colour image to (H, W, 3) uint8.

    Raises:
        LayoutError: It cannot be read.
        FormatError: It is damaged, or has more than 8 bits.
    """
    return as_rgb(decode_image(read_bytes(path), str(path)), str(path))


def as_rgb(image: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    """Return a decoded image as (H, W, 3) uint8: grey is repeated, alpha dropped."""
    if image.dtype != np.uint8:
        raise FormatError(
            "A colour image has the wrong depth", where=where, expected="8 bits", found=image.dtype
        )
    grey = image if image.ndim == 3 else image[..., None]
    return np.asarray(grey[..., :3] if grey.shape[2] >= 3 else np.repeat(grey[..., :1], 3, axis=2), np.uint8)


def read_depth_png(path: Path, per_metre: float) -> NDArray[np.float32]:
    """Read a 16-bit depth PNG.

    Args:
        path: The file.
        per_metre: Stored steps a metre; 0 is unknown.

    Returns:
        (H, W) float32 metres, NaN unknown.

    Raises:
        LayoutError: It cannot be read.
        FormatError: It is damaged, or no 16-bit grey PNG (an 8-bit one has lost its depth).
    """
    stored = decode_image(read_bytes(path), str(path))
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise FormatError(
            "Not a depth map", where=path, expected="16 bits, grey", found=(stored.shape, str(stored.dtype))
        )
    with np.errstate(invalid="ignore"):
        return np.where(stored > 0, stored / per_metre, np.nan).astype(np.float32)


def read_table(path: Path, columns: int | None = None) -> Float:
    """Read a text file of numbers, one row a line; "#" begins a comment, commas and tabs count as blanks.

    Args:
        path: The file.
        columns: Expected numbers a row; None for as many as the first has.

    Returns:
        (R, columns) float64; "inf" and "nan" are read as they are.

    Raises:
        LayoutError: It cannot be read.
        FormatError: No text, no numbers, or rows of different length.
    """
    rows = [_numbers(words, path) for words in text_rows(path)]
    width = columns if columns is not None else len(rows[0]) if rows else 0
    bad = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if bad is not None or not rows:
        raise FormatError(
            "A table has rows of another length",
            where=path if bad is None else f"{path}, row {bad}",
            expected=f"{width} numbers" if width else "rows of numbers",
            found="nothing" if bad is None else len(rows[bad]),
        )
    return np.array(rows, np.float64)


def text_rows(path: Path) -> list[list[str]]:
    """Split a text file into rows of words, without comments and empty lines."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("Not a text file", where=path, found=error) from error
    lines = (line.split("#", 1)[0].replace(",", " ") for line in text.splitlines())
    return [line.split() for line in lines if line.strip()]


def _numbers(words: Sequence[str], path: Path) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise FormatError("Not a number", where=path, found=error) from error


def read_matrix3(path: Path) -> Float:
    """Read K from a text file of a 3x3 or 4x4 matrix, with integer pixel centres, and return it corner-origin."""
    table = read_table(path)
    if table.shape not in ((3, 3), (4, 4), (3, 4)):
        raise FormatError("Not an intrinsic matrix", where=path, expected="3x3 or 4x4", found=table.shape)
    return g.corner_from_centre_intrinsics(table[:3, :3])


def poses_of_tum_rows(rows: Float) -> Float:
    """Turn (R, 7) rows of tx ty tz qx qy qz qw into (R, 4, 4) world_from_cam."""
    return g.rigid_from(g.rotation_from_quaternion_xyzw(rows[:, 3:7]), rows[:, :3])


def images_in(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images of a folder in the order of the numbers in their names.

    Raises:
        LayoutError: There is no such folder, or nothing in it.
    """
    found = sorted(
        (path for path in folder.glob("*") if path.suffix.lower() in tuple(suffixes)), key=natural_key
    )
    if not found:
        raise LayoutError("A folder has no images", where=folder, expected=" or ".join(suffixes))
    return found


def natural_key(path: Path) -> list[tuple[int, float, str]]:
    """Sort key that counts numbers in names as numbers: frame_9 before frame_10, 1.25 after 1.2."""
    try:
        return [(0, float(path.stem), "")]  # a time stamp
    except ValueError:
        return [
            (0, float(part), "") if part.isdigit() else (1, 0.0, part)
            for part in _DIGITS.split(path.stem)
            if part
        ]


def nearest(times: Float, clock: Float, tolerance: float) -> NDArray[np.int64]:
    """Return for each time (A,) the index of the nearest entry of a clock (B,), -1 beyond the tolerance."""
    order = np.argsort(clock, kind="stable")
    ordered = clock[order]
    right = np.clip(np.searchsorted(ordered, times), 1, max(len(ordered) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(ordered) - 1)
    take = np.where(np.abs(ordered[left] - times) <= np.abs(ordered[right] - times), left, right)
    found = np.abs(ordered[take] - times) <= tolerance
    return np.where(found, order[take], -1).astype(np.int64)


def associate(first: Float, second: Float, tolerance: float) -> list[tuple[int, int]]:
    """Pair two clocks one to one, the closest pairs first, as TUM's associate.py does.

    Args:
        first: (A,) seconds.
        second: (B,) seconds.
        tolerance: Pairs are closer than this (strictly).

    Returns:
        (index in first, index in second), by time of the first.
    """
    order = np.argsort(second, kind="stable")
    ordered = second[order]
    candidates = []
    for i, time in enumerate(first):
        low, high = np.searchsorted(ordered, (time - tolerance, time + tolerance))
        for j in order[max(int(low) - 1, 0) : int(high) + 1]:
            gap = abs(float(time - second[j]))
            if gap < tolerance:
                candidates.append((gap, float(time), float(second[j]), i, int(j)))
    left, right, pairs = set(), set(), []
    for _, _, _, i, j in sorted(candidates):
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            pairs.append((i, j))
    return sorted(pairs, key=lambda pair: float(first[pair[0]]))
