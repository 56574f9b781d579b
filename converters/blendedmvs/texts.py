"""The small text files: NNNNNNNN_cam.txt, pair.txt and the lists of scenes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, FormatError

Float = NDArray[np.float64]

#: A camera file has 500 bytes; pair.txt of the largest scene (2,313 images) has some 500 kB.
MAX_CAM_BYTES, MAX_PAIR_BYTES, MAX_LIST_BYTES = 1 << 14, 1 << 24, 1 << 20
#: How far a stored rotation may be from a true one: decimals are good to 1e-6, nothing real to 1e-3.
_ROTATION_TOLERANCE = 1e-3
#: What Python's float takes and C's does not ("1_0", other scripts' digits) stays out.
_NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE
)
_INTEGER = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class NativeCamera:
    """One cam.txt.

    Attributes:
        cam_from_world: (4, 4) as stored.
        intrinsics: (3, 3) as stored.
        sweep: DEPTH_MIN, DEPTH_INTERVAL, DEPTH_NUM, DEPTH_MAX by the names "min", "interval", "num", "max"; None
            for what the file does not say.
    """

    cam_from_world: Float
    intrinsics: Float
    sweep: dict[str, float | None]


def _text(data: bytes, limit: int, where: str) -> str:
    if len(data) > limit:
        raise FormatError(
            "A text file is absurdly large.", where=where, expected=f"below {limit}", found=len(data)
        )
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as err:
        raise FormatError("Not plain text.", where=f"{where}: byte {err.start}", expected="ASCII") from err


def _number(token: str, where: str) -> float:
    if not _NUMBER.fullmatch(token):
        raise FormatError("Not a number.", where=where, expected="a decimal number", found=repr(token[:40]))
    return float(token)


def _index(token: str, where: str) -> int:
    if not _INTEGER.fullmatch(token):
        raise FormatError(
            "Not an image id or count.", where=where, expected="an integer", found=repr(token[:40])
        )
    return int(token)


def parse_cam(data: bytes, where: str) -> NativeCamera:
    """Parse a camera file (MVSNet README.md:143-157).

    Tokens are split at any white space, as every reader does. The file has 29, 30 or 31 of them: both header words,
    16 and 9 matrix entries, and two to four numbers of depth (mvsnet/preprocess.py:131-150). With 30, the last is
    DEPTH_NUM and max = min + interval * num, as in that loader, not the README's num - 1.

    Args:
        data: The file.
        where: Its name, for errors.

    Raises:
        FormatError: Other words, another count, or not numbers.
    """
    tokens = _text(data, MAX_CAM_BYTES, where).split()
    if not 29 <= len(tokens) <= 31 or (tokens[0], tokens[17]) != ("extrinsic", "intrinsic"):
        raise FormatError(
            "Not a camera file.",
            where=where,
            expected="extrinsic, 16 numbers, intrinsic, 9 numbers, then 2 to 4 numbers of depth",
            found=f"{len(tokens)} words, beginning {' '.join(tokens[:3])[:60]!r}",
        )
    values = np.array([_number(t, where) for t in (*tokens[1:17], *tokens[18:])])
    return NativeCamera(values[:16].reshape(4, 4), values[16:25].reshape(3, 3), _sweep(values[25:].tolist()))


def _sweep(values: list[float]) -> dict[str, float | None]:
    known = dict(zip(("min", "interval", "num", "max"), values, strict=False))
    if len(values) == 3:
        known["max"] = known["min"] + known["interval"] * known["num"]
    return {
        key: known[key] if key in known and math.isfinite(known[key]) else None
        for key in ("min", "interval", "num", "max")
    }


def pose_of(camera: NativeCamera, where: str) -> Float | None:
    """Return world_from_cam (4, 4), exactly rigid; None where the stored pose is not finite.

    Raises:
        ConventionError: A finite pose is not rigid within the precision of its decimals.
    """
    stored = camera.cam_from_world
    if not np.isfinite(stored).all():
        return None
    left, _, right = np.linalg.svd(np.clip(stored[:3, :3], -2, 2))
    rotation = left @ right
    off = max(np.abs(rotation - stored[:3, :3]).max(), np.abs(stored[3] - [0, 0, 0, 1]).max())
    if off > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise ConventionError(
            "A pose is not rigid.",
            where=f"{where}: extrinsic",
            expected="[R t; 0 0 0 1]",
            found=stored.tolist(),
        )
    return np.asarray(g.invert_rigid(g.rigid_from(rotation, stored[:3, 3])))


def intrinsics_of(camera: NativeCamera, where: str) -> Float:
    """Return K (3, 3) in pixels, corner origin, which is how the authors use it (homography_warping.py:100-131).

    Raises:
        ConventionError: Not finite, with a skew (no reader uses one), or not a K.
    """
    k = camera.intrinsics
    plain = np.array([[k[0, 0], 0, k[0, 2]], [0, k[1, 1], k[1, 2]], [0, 0, 1]])
    if not np.isfinite(k).all() or (k != plain).any() or min(k[0, 0], k[1, 1]) <= 0:
        raise ConventionError(
            "Not an intrinsic matrix without skew.",
            where=f"{where}: intrinsic",
            expected="fx 0 cx / 0 fy cy / 0 0 1",
            found=k.tolist(),
        )
    return k


def parse_pairs(data: bytes, where: str) -> dict[int, list[tuple[int, float]]]:
    """Parse pair.txt line by line (mvsnet/preprocess.py:425-446).

    The first line counts the reference images; each has a line with its id and one with `count id score ...`.
    Rows have any number of sources, also none, and may end in a blank.

    Returns:
        Reference id -> (source id, score) in the file's order.

    Raises:
        FormatError: Truncated, a count that does not fit its line, or a reference twice.
    """
    lines = [(n, text.split()) for n, text in enumerate(_text(data, MAX_PAIR_BYTES, where).splitlines(), 1)]
    lines = [(n, words) for n, words in lines if words]
    if not lines or len(lines[0][1]) != 1:
        raise FormatError("pair.txt has no count.", where=f"{where}: line 1", expected="the number of images")
    count = _index(lines[0][1][0], f"{where}: line 1")
    if len(lines) != 1 + 2 * count:
        raise FormatError(
            "pair.txt has another number of lines than it says.",
            where=where,
            expected=f"2 lines for each of {count} images",
            found=f"{len(lines) - 1} lines",
        )
    rows: dict[int, list[tuple[int, float]]] = {}
    for (n, head), (_, words) in zip(lines[1::2], lines[2::2], strict=True):
        here = f"{where}: line {n}"
        reference = _index(head[0], here)
        if len(head) != 1 or reference in rows:
            raise FormatError(
                "Not the id of one more reference image.", where=here, found=" ".join(head)[:60]
            )
        rows[reference] = _sources(words, f"{where}: line {n + 1}")
    return rows


def _sources(words: list[str], where: str) -> list[tuple[int, float]]:
    count = _index(words[0], where)
    if len(words) != 1 + 2 * count:
        raise FormatError(
            "A row of pair.txt has another length than it says.",
            where=where,
            expected=f"{count} ids and scores",
            found=f"{len(words) - 1} words",
        )
    sources = [(_index(i, where), _number(s, where)) for i, s in zip(words[1::2], words[2::2], strict=True)]
    if not all(math.isfinite(score) for _, score in sources):
        raise FormatError("A score is not finite.", where=where, expected="finite numbers")
    return sources


def parse_list(data: bytes, where: str) -> frozenset[str]:
    """Parse a list of scene ids, one a line; validation_list.txt has CRLF line ends, the others LF."""
    return frozenset(_text(data, MAX_LIST_BYTES, where).split())
