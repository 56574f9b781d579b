"""What inference asks, and who answers: everything here is written against these types, never against a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

Float = NDArray[np.float64]
Index = NDArray[np.int64]
#: float32 from a model, float64 from truth.
Real = NDArray[Any]


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip without looking at it.

    Attributes:
        size: (W, H) of the video's frames.
        times_s: (T,) float64 seconds, increasing.
        numbers: (T,) int64, number of each frame in the video, increasing: by these clips are told to overlap.
    """

    size: tuple[int, int]
    times_s: Float
    numbers: Index

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.numbers)

    @property
    def aspect_ratio(self) -> float:
        """W / H."""
        return self.size[0] / self.size[1]


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip.

    Attributes:
        rgb: (T, H, W, 3) uint8 at the video's own resolution: colour patches are cut from these.
        times_s: (T,) float64 seconds, increasing.
        numbers: (T,) int64, increasing.
    """

    rgb: NDArray[np.uint8]
    times_s: Float
    numbers: Index

    def __post_init__(self) -> None:
        rgb, count = self.rgb, len(self.numbers)
        if rgb.dtype != np.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3 or 0 in rgb.shape:
            raise UsageError(
                "Frames of a clip are no pictures",
                expected="(T, H, W, 3) uint8",
                found=f"{rgb.shape} {rgb.dtype}",
            )
        if not len(rgb) == count == len(self.times_s):
            raise UsageError(
                "Frames, times and numbers of a clip differ in length",
                found=(len(rgb), len(self.times_s), count),
            )
        for name in ("numbers", "times_s"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise UsageError("Frames of a clip must be in order", where=name, expected="increasing")

    @property
    def info(self) -> ClipInfo:
        """All but the pictures."""
        return ClipInfo((self.rgb.shape[2], self.rgb.shape[1]), self.times_s, self.numbers)


@dataclass(frozen=True)
class Answer:
    """Answers to N queries; what is not known is NaN, and then `confidence` is low and `visible` 0.

    Attributes:
        xyz: (N, 3) the point at t_tgt in the camera of t_cam, OpenCV axes, in the clip's own unit.
        uv: (N, 2) where that is in the image of t_cam, image widths and heights.
        visible: (N,) probability in [0, 1] of being seen in frame t_tgt.
        displacement: (N, 3) motion from t_src to t_tgt, rotated into t_cam, in the unit of xyz.
        normal: (N, 3) unit normal at t_tgt in t_cam.
        confidence: (N,) positive.
    """

    xyz: Real
    uv: Real
    visible: Real
    displacement: Real
    normal: Real
    confidence: Real

    def __len__(self) -> int:
        return len(self.xyz)


class OpenClip(Protocol):
    """A clip that is encoded and waits for queries."""

    @property
    def info(self) -> ClipInfo:
        """What the clip is."""
        ...

    @property
    def num_frames(self) -> int:
        """T."""
        ...

    def ask(self, uv: NDArray[np.floating[Any]], t_src: Index, t_tgt: Index, t_cam: Index) -> Answer:
        """Answer any number of queries; none influences another.

        Args:
            uv: (N, 2) in [0, 1]^2, shares of the image's width and height, corner origin.
            t_src: (N,) frame of (u, v), 0 to T - 1.
            t_tgt: (N,) time of the point that is asked for.
            t_cam: (N,) frame whose camera it is told in.

        Raises:
            UsageError: A place is not in the image, or a time not in the clip.
        """
        ...


class Answerer(Protocol):
    """A model, or what stands in for one."""

    @property
    def max_frames(self) -> int:
        """Frames of the longest clip."""
        ...

    def open(self, clip: ClipFrames) -> OpenClip:
        """Encode a clip once."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what answers follow from, as plain data: for provenance."""
        ...


def checked_query(
    uv: ArrayLike, t_src: ArrayLike, t_tgt: ArrayLike, t_cam: ArrayLike, num_frames: int
) -> tuple[Float, Index, Index, Index]:
    """Return queries as (N, 2) float64 and three (N,) int64; a time may be one number for all.

    Raises:
        UsageError: They do not fit each other, the image or the clip.
    """
    places = np.asarray(uv, np.float64)
    if places.ndim != 2 or places.shape[1] != 2:
        raise UsageError("Places of queries must be (N, 2)", where="uv", found=places.shape)
    if not ((places >= 0) & (places <= 1)).all():  # also where it is NaN
        raise UsageError("A query lies outside the image", where="uv", expected="0 to 1")
    times = []
    for name, value in (("t_src", t_src), ("t_tgt", t_tgt), ("t_cam", t_cam)):
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or array.shape not in ((), (len(places),)):
            raise UsageError(
                "Times of queries must be integers, one a query",
                where=name,
                expected=f"({len(places)},)",
                found=f"{array.shape} {array.dtype}",
            )
        # Never clamped: a model's table of times would answer for another frame.
        if array.size and not 0 <= array.min() <= array.max() < num_frames:
            raise UsageError(
                "A time lies outside the clip",
                where=name,
                expected=f"0 to {num_frames - 1}",
                found=f"{array.min()} to {array.max()}",
            )
        times.append(np.broadcast_to(array, (len(places),)).astype(np.int64))
    return places, times[0], times[1], times[2]


def join_answers(parts: Sequence[Answer]) -> Answer:
    """Put answers one after the other."""
    return Answer(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Answer))
    )


def pick_answers(answer: Answer, rows: Any) -> Answer:
    """Return some of the answers, in the order of `rows`."""
    return Answer(*(getattr(answer, field.name)[rows] for field in fields(Answer)))
