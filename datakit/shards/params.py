"""What `pack` can be told; every value changes the bytes of the set and stands in its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from datakit.errors import UsageError

from .layout import LEVELS


@dataclass(frozen=True)
class PackParams:
    """Parameters of a shard set.

    Attributes:
        clip_frames: Most frames of a clip; a shorter view gives one shorter clip.
        stride: Frames from one window to the next; None for adjoining windows (`clip_frames`). Of a set of photos:
            photos of a window that are in none before it.
        max_side: Longest side of stored colour, px; larger frames are scaled down. None keeps the source's
            grid, and with `rgb` "native" also its bytes. Other layers are thinned by whole steps, which moves no
            sample, and stay at least this large where they were.
        rgb: "native" passes image bytes through where the grid is kept; "jpeg" encodes every frame.
        jpeg_quality: Of frames that are encoded (4:4:4).
        depth: "log16" quantises log depth to 16 bits (float32 where a clip's range is too wide for an error of
            8e-5); "float32" keeps every bit.
        shard_bytes: A shard is closed before it would grow past this; one clip may be larger.
        min_level: Worst certificate level that is packed: pass, warn, not_testable, fail or none.
        depth_edge: Depth boundary: half of the relative step in depth between neighbouring pixels.
        motion_edge: Motion boundary: half of the step in motion per frame between neighbouring pixels, as a share
            of the image's longer side.
        edge_dilate: Pixels by which boundary sets grow.
        edges_per_frame: Most boundary pixels of each kind kept per frame.
        motion_grid: Scene motion is compared on a thinned depth grid whose longer side is below twice this.
        difficulty_tracks: Tracks per clip that the difficulty index is measured on.
        covisibility_points: Pixels of each photo that covisibility is measured on, for sets of photos without a
            covisibility file; 0 measures none. With fewer of them, where there are many photos, the windows of a long
            set are chosen.
    """

    clip_frames: int = 48
    stride: int | None = None
    max_side: int | None = None
    rgb: str = "native"
    jpeg_quality: int = 95
    depth: str = "log16"
    shard_bytes: int = 256_000_000
    min_level: str = "warn"
    depth_edge: float = 0.05
    motion_edge: float = 0.001
    edge_dilate: int = 1
    edges_per_frame: int = 128
    motion_grid: int = 256
    difficulty_tracks: int = 64
    covisibility_points: int = 256

    def __post_init__(self) -> None:
        for name in _LIMITS:
            value = getattr(self, name)
            expected, is_good = _LIMITS[name]
            if value is None and name in ("stride", "max_side"):
                continue
            if not is_good(value):
                raise UsageError("Bad parameter of pack", where=name, expected=expected, found=value)

    @property
    def window_stride(self) -> int:
        """Frames from one window to the next."""
        return self.clip_frames if self.stride is None else self.stride

    def to_dict(self) -> dict[str, Any]:
        """Give the parameters as JSON-able data."""
        return asdict(self)


def _at_least(low: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an integer from {low}", lambda value: isinstance(value, int) and value >= low


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(names), lambda value: value in names


_LIMITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "clip_frames": _at_least(1),
    "stride": _at_least(1),
    "max_side": _at_least(16),
    "rgb": _one_of("native", "jpeg"),
    "jpeg_quality": ("1..100", lambda value: isinstance(value, int) and 1 <= value <= 100),
    "depth": _one_of("log16", "float32"),
    "shard_bytes": _at_least(1),
    "min_level": _one_of(*LEVELS),
    "depth_edge": ("a number above 0", lambda value: value > 0),
    "motion_edge": ("a number above 0", lambda value: value > 0),
    "edge_dilate": _at_least(0),
    "edges_per_frame": _at_least(0),
    "motion_grid": _at_least(16),
    "difficulty_tracks": _at_least(0),
    "covisibility_points": _at_least(0),
}
