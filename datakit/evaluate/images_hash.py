"""Perceptual hashes of frames: the same picture keeps its hash through resizing and re-encoding.

Two 64-bit hashes of ImageHash are kept of each frame: pHash (signs of low frequencies) and dHash (signs of
horizontal differences). A pair of frames counts as the same only if both are near: each alone takes some different
pictures for equal, seldom the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError

Bits = NDArray[np.uint64]
#: Pairs compared at a time, so that comparing takes a few tens of megabytes whatever the number of frames.
_BLOCK = 1 << 21
_NUM_BITS = 64
_POPCOUNT_16 = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)


@dataclass(frozen=True)
class HashParams:
    """What counts as the same picture.

    Attributes:
        max_phash: Most bits of 64 that pHashes differ in.
        max_dhash: Most bits of 64 that dHashes differ in.
        min_contrast: Least standard deviation of grey (0 to 255); flatter frames have no hash worth comparing.
        max_frames: Most frames looked at of a clip or scene, evenly spread.
    """

    max_phash: int = 6
    max_dhash: int = 8
    min_contrast: float = 4.0
    max_frames: int = 32

    def __post_init__(self) -> None:
        for name in ("max_phash", "max_dhash"):
            if not 0 <= getattr(self, name) <= _NUM_BITS:
                raise UsageError(
                    "A limit is out of range", where=name, expected="0 to 64", found=getattr(self, name)
                )
        if self.max_frames < 1:
            raise UsageError("At least one frame is needed", where="max_frames", found=self.max_frames)


@dataclass(frozen=True)
class FrameHashes:
    """Hashes of F frames of several items.

    Attributes:
        item: (F,) int64 which item each frame is of.
        frame: (F,) int64 frame number in it.
        phash: (F,) uint64.
        dhash: (F,) uint64.
        num_flat: Frames left out for want of contrast.
    """

    item: NDArray[np.int64]
    frame: NDArray[np.int64]
    phash: Bits
    dhash: Bits
    num_flat: int = 0


def spread_frames(num_frames: int, most: int) -> NDArray[np.int64]:
    """Return at most so many frame numbers, evenly spread, first and last among them.

    >>> spread_frames(10, 4).tolist(), spread_frames(3, 8).tolist()
    ([0, 3, 6, 9], [0, 1, 2])
    """
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, most)).round().astype(np.int64))


def hash_frame(rgb: NDArray[np.uint8], min_contrast: float = 0.0) -> tuple[int, int] | None:
    """Return (pHash, dHash) of an (H, W, 3) uint8 image; None if its grey has less contrast than asked.

    Raises:
        UsageError: ImageHash is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise UsageError(
            "ImageHash is not installed", mend="pip install 'datakit[evaluate]', or compare names only"
        ) from error
    from PIL import Image

    grey = Image.fromarray(np.ascontiguousarray(rgb)).convert("L")
    if np.asarray(grey, np.float32).std() < min_contrast:
        return None
    return _as_int(imagehash.phash(grey).hash), _as_int(imagehash.dhash(grey).hash)


def hash_items(
    items: Iterable[Iterable[tuple[int, NDArray[np.uint8]]]],
    params: HashParams,
    progress: Callable[[int], None] | None = None,
) -> FrameHashes:
    """Hash the frames of several items.

    Args:
        items: For each item its frames as (number, (H, W, 3) uint8).
        params: `min_contrast` is used.
        progress: Called with the number of each finished item.

    Returns:
        The hashes, in order.
    """
    rows: list[tuple[int, int, int, int]] = []
    num_flat = 0
    for i, frames in enumerate(items):
        for number, rgb in frames:
            found = hash_frame(rgb, params.min_contrast)
            if found is None:
                num_flat += 1
            else:
                rows.append((i, number, *found))
        if progress is not None:
            progress(i)
    item, frame = (np.array([row[k] for row in rows], np.int64) for k in (0, 1))
    phash, dhash = (np.array([row[k] for row in rows], np.uint64) for k in (2, 3))
    return FrameHashes(item, frame, phash, dhash, num_flat)


def near_pairs(ours: FrameHashes, theirs: FrameHashes, params: HashParams) -> NDArray[np.int64]:
    """Find all pairs of frames whose hashes are both near, comparing every one with every other.

    Args:
        ours: A frames.
        theirs: B frames.
        params: `max_phash` and `max_dhash` are used.

    Returns:
        (P, 4) int64: row in ours, row in theirs, bits of pHash and of dHash that differ; by the first two.
    """
    found = [np.zeros((0, 4), np.int64)]
    if not len(theirs.phash):
        return found[0]
    step = max(_BLOCK // len(theirs.phash), 1)
    for start in range(0, len(ours.phash), step):
        at = slice(start, start + step)
        by_phash = count_bits(ours.phash[at, None] ^ theirs.phash[None])
        a, b = np.nonzero(by_phash <= params.max_phash)
        by_dhash = count_bits(ours.dhash[a + start] ^ theirs.dhash[b])
        keep = by_dhash <= params.max_dhash
        rows = (a[keep] + start, b[keep], by_phash[a[keep], b[keep]], by_dhash[keep])
        found.append(np.stack(rows, axis=1).astype(np.int64))
    return np.concatenate(found)


def count_bits(words: Bits) -> NDArray[np.uint8]:
    """Return the number of ones in each 64-bit word.

    >>> count_bits(np.array([0, 1, 255, 2**64 - 1], np.uint64)).tolist()
    [0, 1, 8, 64]
    """
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.asarray(np.bitwise_count(words), np.uint8)
    parts = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 4)
    return np.asarray(_POPCOUNT_16[parts].sum(axis=-1), np.uint8)


def _as_int(bits: NDArray[Any]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")
