"""What an inference will cost on this machine: queries counted, seconds measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answers import Answer, Answerer, OpenClip
from .params import InferParams
from .requests import TrackRequests
from .window import count_queries

#: A calibration asks until a call took this long, so that a clock's grain and a first call's warm-up do not matter.
_CALIBRATION_S = 0.3


@dataclass(frozen=True)
class Estimate:
    """What a job will cost.

    Attributes:
        num_windows: Windows of the job.
        num_missing: Those that are still to be made.
        queries: Queries of all missing windows, by what they are for.
        seconds_per_clip: To open a clip: encode it and project keys and values.
        queries_per_second: Of the decoder, measured.
    """

    num_windows: int
    num_missing: int
    queries: Mapping[str, int]
    seconds_per_clip: float
    queries_per_second: float

    @property
    def seconds(self) -> float:
        """Of all missing windows; not of reading the video and writing the outputs."""
        return self.num_missing * self.seconds_per_clip + sum(self.queries.values()) / self.queries_per_second

    def __str__(self) -> str:
        total = sum(self.queries.values())
        shares = ", ".join(f"{name} {count:,}" for name, count in self.queries.items() if count)
        return (
            f"{self.num_missing} of {self.num_windows} windows to do: {total:,} queries ({shares})\n"
            f"measured here: {self.queries_per_second:,.0f} queries/s, {self.seconds_per_clip:.2f} s to encode a "
            f"window; about {format_seconds(self.seconds)}"
        )


def estimate_cost(
    spans: Sequence[tuple[int, int]],
    missing: Sequence[int],
    size: tuple[int, int],
    opening: float,
    rate: float,
    params: InferParams,
    requests: TrackRequests,
) -> Estimate:
    """Count the queries of the missing windows.

    Args:
        spans: (first, one after the last) frame of each window.
        missing: Numbers of those to be made.
        size: (W, H) of the video.
        opening: Seconds that opening a clip took.
        rate: Queries a second.
        params: How it is inferred.
        requests: What is followed.
    """
    queries: dict[str, int] = {}
    for number in missing:
        first, stop = spans[number]
        num_tracks = requests.expected(size)
        for name, count in count_queries(params, stop - first, num_tracks, size).items():
            queries[name] = queries.get(name, 0) + count
    return Estimate(len(spans), len(missing), queries, opening, rate)


def chunk_of(answerer: Answerer) -> int:
    """Return how many queries an answerer decodes at a time; fewer cost as much."""
    return int(answerer.describe().get("chunk", 256))


def measure_rate(clip: OpenClip, chunk: int, most: int = 1 << 20) -> float:
    """Measure queries a second on an open clip: of the last of growing calls, so that warm-up is not in it.

    Args:
        clip: The clip.
        chunk: Queries of the first calls.
        most: Queries of the largest.
    """
    rng, count = np.random.default_rng(0), chunk
    clip.ask(*_random_queries(rng, chunk, clip.num_frames))
    while True:
        queries = _random_queries(rng, count, clip.num_frames)
        start = time.monotonic()
        clip.ask(*queries)
        seconds = time.monotonic() - start
        if seconds >= _CALIBRATION_S or count >= most:
            return count / max(seconds, 1e-9)
        count *= 4


def _random_queries(rng: np.random.Generator, count: int, num_frames: int) -> tuple[NDArray[Any], ...]:
    times = rng.integers(0, num_frames, (3, count))
    return rng.random((count, 2), np.float32), times[0], times[1], times[2]


@dataclass
class Counter:
    """Queries asked so far."""

    count: int = 0


class CountingClip:
    """An open clip that tells how many queries it was asked; all else is the clip's own."""

    def __init__(self, clip: OpenClip, counter: Counter, advance: Callable[[int], object]) -> None:
        self._clip, self._counter, self._advance = clip, counter, advance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clip, name)

    def ask(
        self,
        uv: NDArray[np.float32],
        t_src: NDArray[np.int64],
        t_tgt: NDArray[np.int64],
        t_cam: NDArray[np.int64],
    ) -> Answer:
        """Ask the clip, and count."""
        answer = self._clip.ask(uv, t_src, t_tgt, t_cam)
        self._counter.count += len(uv)
        self._advance(len(uv))
        return answer


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it.

    >>> format_seconds(75), format_seconds(0.4), format_seconds(8000)
    ('1 min 15 s', '0.4 s', '2 h 13 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
