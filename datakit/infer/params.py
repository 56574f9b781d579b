"""All choices of inference, one flat record of plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from datakit.errors import UsageError


def _number(default: Any, low: float, high: float = float("inf"), above: bool = False) -> Any:
    """A field that must lie in [low, high], or in (low, high] with `above`."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclass(frozen=True)
class InferParams:
    """How a video is inferred. Lengths of grids are in cells along the longer side of the picture.

    The cost of each part in queries is what `datakit.infer.window.count_queries` says.

    Attributes:
        window: Frames of a clip; the model's table of times is the limit.
        overlap: Frames that a window shares with the one before. The paper gives none (arXiv 2512.08924, App. B).
        depth_size: Grid of depth, confidence and normals. Not the picture's resolution: at 256 a clip of 48 frames
            takes 3.1 million queries.
        normals: Keep the normals that come with depth.
        motion_size: Grid on which motion between the window's ends is asked for, by which still things are told.
        static_at: A point counts as still where it moves by less than this share of its depth.
        camera_grid: Grid of the points from which intrinsics and poses are found; in both directions.
        focal: `shared` gives all frames of a window the median of their focal lengths; `per_frame` is for zooms.
        axis_margin: Points nearer to the axis than this (shares of the picture) are not used for focal lengths,
            where u - 1/2 is divided by an x near zero.
        star: Frames from a keyframe to the next, each keyframe's star reaching to both neighbours; None for half
            the window.
        least_confidence: Answers below this are as good as none.
        relative_confidence: Nor are those counted that are below this share of the median (VGGT-Long's rule is 0.1).
        least_points: A pose or focal length from fewer points is unknown.
        visible_at: A point counts as seen from this probability on.
        position: Where a track is in the picture: the model's own answer (`head`), or its point `projected` with
            the focal lengths found.
        world_tracks: Tracks in the world's frame by `queries` with t_cam held fixed, as the paper does, or by
            `poses` from those in each camera, which halves their cost.
        keep_confident: Share of points, the most confident ones, that windows are joined by (the paper's 0.85).
        seam_points: At most so many points of an overlap are used to join windows.
        huber_rounds: Rounds of reweighting in robust fits.
        scale_disagreement: A seam is bad where scale from points and from cameras differ by more than this share.
        rotation_disagreement: Likewise rotations, degrees.
        least_baseline: Where cameras of an overlap spread by less than this share of the median depth, they tell
            nothing about scale.
        dense: Follow every cell of a grid.
        dense_size: That grid.
        dense_batch: Cells that are followed at a time. Large ones waste: cells of one batch may lie on one track.
        dense_rounding: Which cells a track's place covers: the `nearest`, or the `four` around it.
        dense_agreement: A track covers a cell only where its depth is that of the cell up to this share; None for
            visibility alone, which spares the depth queries.
        dense_stop: Share of all cells from which on the rest is filled by depth alone.
        seed: Of the order in which cells are taken.
    """

    window: int = _number(48, 1)
    overlap: int = _number(16, 1)
    depth_size: int = _number(64, 1)
    normals: bool = True
    motion_size: int = _number(32, 1)
    static_at: float = _number(0.02, 0, above=True)
    camera_grid: int = _number(16, 2)
    focal: Literal["shared", "per_frame"] = "shared"
    axis_margin: float = _number(0.1, 0, 0.49)
    star: int | None = _number(None, 1)
    least_confidence: float = _number(1e-3, 0)
    relative_confidence: float = _number(0.1, 0)
    least_points: int = _number(16, 4)
    visible_at: float = _number(0.5, 0, 1)
    position: Literal["head", "projected"] = "head"
    world_tracks: Literal["queries", "poses"] = "queries"
    keep_confident: float = _number(0.85, 0, 1, above=True)
    seam_points: int = _number(20_000, 16)
    huber_rounds: int = _number(20, 1)
    scale_disagreement: float = _number(0.02, 0, above=True)
    rotation_disagreement: float = _number(2.0, 0, above=True)
    least_baseline: float = _number(0.01, 0, above=True)
    dense: bool = False
    dense_size: int = _number(64, 1)
    dense_batch: int = _number(4096, 1)
    dense_rounding: Literal["nearest", "four"] = "nearest"
    dense_agreement: float | None = _number(0.02, 0, above=True)
    dense_stop: float = _number(0.995, 0, 1, above=True)
    seed: int = _number(0, 0)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            _check(each.name, getattr(self, each.name), hints[each.name], each.metadata)
        if self.overlap >= self.window > 1:
            raise UsageError(
                "Windows must overlap by less than their length",
                expected=f"1 to {self.window - 1}",
                found=self.overlap,
            )


def _check(name: str, value: Any, hint: Any, bounds: Any) -> None:
    options = get_args(hint)
    if value is None and type(None) in options:
        return
    if not bounds:
        choices = (True, False) if hint is bool else options
        if value not in choices:
            raise UsageError("Unknown choice", where=name, expected=", ".join(map(str, choices)), found=value)
        return
    is_whole = int in (hint, *options)
    fits = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
    low, high = bounds["low"], bounds["high"]
    if not fits or not low <= value <= high or (bounds["above"] and value == low):
        kind = "a whole number" if is_whole else "a number"
        first = f"above {low}" if bounds["above"] else f"from {low}"
        raise UsageError(
            "A parameter is out of range", where=name, expected=f"{kind} {first} to {high}", found=value
        )
