"""Draw sets of frames that show one place, for scenes without an order in time; keep overlaps in few bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError


def draw_set(
    overlap: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
    *,
    least: float = 0.1,
    most: float = 1.0,
    first: int | None = None,
) -> NDArray[np.int64]:
    """Draw frames so that each overlaps with one drawn before it.

    The set grows from one frame: the next is drawn evenly from all frames whose overlap with some frame of the set,
    in both directions, is at least `least`, and with none above `most` (near copies teach little). Where nothing is
    left to draw, the set stays smaller; no frame comes twice.

    Args:
        overlap: (F, F) of `Covisibility`; NaN counts as no overlap.
        count: Frames wanted.
        rng: Every choice comes from it: the same generator state gives the same set.
        least: Overlap a new frame must have with some frame of the set.
        most: Overlap it must not exceed with any.
        first: The frame to grow from; None draws one.

    Returns:
        (K,) rows of the overlap matrix in the order drawn, 1 <= K <= count.

    Raises:
        UsageError: There are no frames, none are wanted, or `first` is not one of them.

    >>> chain = np.eye(4) + np.eye(4, k=1) * 0.5 + np.eye(4, k=-1) * 0.5
    >>> sorted(draw_set(chain, 3, np.random.default_rng(0), first=0).tolist())
    [0, 1, 2]
    """
    num_frames = len(overlap)
    if count < 1 or not num_frames or (first is not None and not 0 <= first < num_frames):
        raise UsageError(
            "No set of frames can be drawn", expected=f"frames 0..{num_frames - 1}", found=(count, first)
        )
    both = np.nan_to_num(np.minimum(overlap, overlap.T), nan=0.0)
    drawn = [int(rng.integers(num_frames)) if first is None else first]
    reached, near = both[drawn[0]] >= least, both[drawn[0]] > most
    free = np.ones(num_frames, bool)
    free[drawn[0]] = False
    while len(drawn) < count:
        candidates = np.flatnonzero(reached & free & ~near)
        if not candidates.size:
            break
        drawn.append(int(candidates[rng.integers(len(candidates))]))
        free[drawn[-1]] = False
        reached |= both[drawn[-1]] >= least
        near |= both[drawn[-1]] > most
    return np.array(drawn, np.int64)


def pack_overlap(overlap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Keep what `draw_set` asks of overlaps: the smaller of both directions, in one byte a pair of frames.

    Rounded down, so that two frames overlap at least as much as is stored.

    Args:
        overlap: (F, F), NaN unknown.

    Returns:
        (F * (F - 1) / 2,) codes of the upper triangle, row by row: 255 is all, 0 none or unknown.
    """
    both = np.nan_to_num(np.minimum(overlap, overlap.T), nan=0.0)
    share = both[np.triu_indices(len(both), 1)].astype(np.float64)
    return np.floor(np.clip(share, 0, 1) * 255).astype(np.uint8)


def unpack_overlap(codes: NDArray[np.uint8], num_frames: int) -> NDArray[np.float32]:
    """Return the (F, F) overlaps, the same in both directions, that `pack_overlap` kept.

    Raises:
        UsageError: Not the codes of so many frames.

    >>> unpack_overlap(np.array([255, 51, 0], np.uint8), 3).tolist()[0][1:]
    [1.0, 0.20000000298023224]
    """
    expected = num_frames * (num_frames - 1) // 2
    if len(codes) != expected:
        raise UsageError("Not the overlaps of so many frames", expected=f"{expected} codes", found=len(codes))
    out = np.eye(num_frames, dtype=np.float32)
    rows, cols = np.triu_indices(num_frames, 1)
    out[rows, cols] = out[cols, rows] = codes.astype(np.float32) / np.float32(255)
    return out
