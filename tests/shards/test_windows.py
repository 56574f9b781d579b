from __future__ import annotations

import pytest

from datakit.shards import windows


@pytest.mark.parametrize(
    ("num_frames", "clip_frames", "stride", "starts"),
    [
        (1, 48, 48, [0]),
        (24, 48, 48, [0]),
        (48, 48, 48, [0]),
        (49, 48, 48, [0, 1]),
        (144, 48, 48, [0, 48, 96]),
        (100, 48, 24, [0, 24, 48, 52]),
        (10, 4, 6, [0, 6]),
        (13, 4, 6, [0, 6]),
    ],
)
def test_windows(num_frames: int, clip_frames: int, stride: int, starts: list[int]) -> None:
    found = windows(num_frames, clip_frames, stride)
    assert [start for start, _ in found] == starts
    assert {count for _, count in found} == {min(num_frames, clip_frames)}


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_every_frame_is_in_some_window_and_none_is_beyond_the_end(stride: int) -> None:
    for num_frames in range(1, 70):
        found = windows(num_frames, 16, stride)
        covered = {t for start, count in found for t in range(start, start + count)}
        assert covered == set(range(num_frames))
        assert len(found) == len(set(found))
