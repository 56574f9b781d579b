"""Draw sets of frames that show one place, for scenes without an order in time."""

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
