"""Cut a view whose frames have an order into windows."""

from __future__ import annotations


def windows(num_frames: int, clip_frames: int, stride: int) -> list[tuple[int, int]]:
    """List the windows of a view as (first frame, number of frames).

    A view no longer than a clip gives one window of its true length. Of a longer one every window is full: the
    last is moved back to end with the view, overlapping the one before, so that no frame and no clip is cut short.
    Strides above `clip_frames` leave frames out between the windows, and so may leave some out at the end.

    >>> windows(24, 48, 48), windows(100, 48, 48), windows(96, 48, 24)
    ([(0, 24)], [(0, 48), (48, 48), (52, 48)], [(0, 48), (24, 48), (48, 48)])
    """
    if num_frames <= clip_frames:
        return [(0, num_frames)]
    starts = list(range(0, num_frames - clip_frames + 1, stride))
    if starts[-1] + clip_frames < num_frames and stride <= clip_frames:
        starts.append(num_frames - clip_frames)
    return [(start, clip_frames) for start in starts]
