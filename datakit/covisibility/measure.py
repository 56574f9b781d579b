"""How much of what one frame shows another frame shows too, for all pairs of frames of a scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from datakit.errors import QualityError, UsageError
from datakit.motion import MotionKind, Visibility
from datakit.scene import Scene, View

from .look import Float, depth_frame, draw_points, look

METHODS = ("auto", "depth", "points")
#: Depth of which less is known is a few points, of which only their own tracks tell which image sees them.
_SPARSE = 0.25
_FRAMES_LOOKED_AT = 4


@dataclass(frozen=True)
class CovisibilityParams:
    """How covisibility is measured.

    Attributes:
        method: "depth" carries pixels with depth into the other frames, "points" counts points of the motion record
            that both frames see, "auto" takes points where a scene has them and only sparse depth.
        points: Pixels drawn in each frame (method "depth").
        max_frames: Frames taken of a scene, evenly spread; memory and file grow with its square.
        tolerance: Share of its depth by which a point may differ from a surface and still be seen; None for what
            the scene's kind of depth is good to.
        seed: Of the pixels.
    """

    method: str = "auto"
    points: int = 256
    max_frames: int = 1000
    tolerance: float | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Covisibility:
    """Measured overlaps.

    Attributes:
        views: Names of the views.
        view: (F,) int32 index into `views` of each frame measured.
        frame: (F,) int32 frame of that view.
        overlap: (F, F) float32: [i, j] is the share of what frame i shows that frame j shows too, of all of i that j
            can say anything about; NaN where j can say nothing. Not symmetric: a close-up lies within an overview.
        params: How it was measured: the fields of `CovisibilityParams`, and the method "used".
    """

    views: tuple[str, ...]
    view: NDArray[np.int32]
    frame: NDArray[np.int32]
    overlap: NDArray[np.float32]
    params: Mapping[str, Any]


def measure_covisibility(
    scene: Scene,
    params: CovisibilityParams | None = None,
    among: Sequence[tuple[str, int]] | None = None,
) -> Covisibility:
    """Measure the overlap of all pairs of frames of a scene, over all views.

    Only what is static is carried. One depth map is in memory at a time. The pixels of a frame do not depend on which
    other frames are measured, so overlaps among some frames are those of the whole scene.

    Args:
        scene: Open scene.
        params: How; None for the defaults.
        among: (view, frame) to measure; None for all frames. Those without pose or depth layer are left out.

    Returns:
        The overlaps.

    Raises:
        UsageError: A parameter is out of range.
        QualityError: No frame has what the method needs.
    """
    chosen = CovisibilityParams() if params is None else params
    _check(chosen)
    method = _method(scene) if chosen.method == "auto" else chosen.method
    frames = _frames(scene, chosen.max_frames, method, among)
    names = tuple(scene.views)
    overlap = _by_points(scene, frames) if method == "points" else _by_depth(scene, frames, chosen)
    if not np.isfinite(overlap).any():
        raise QualityError(
            "Covisibility cannot be measured.",
            where=scene.path,
            expected="frames with poses and depth of something static, or points with visibility",
            found=f"{len(frames)} frames of method {method}",
        )
    index = np.array([(names.index(view), t) for view, t in frames], np.int32).reshape(-1, 2)
    return Covisibility(names, index[:, 0], index[:, 1], overlap, asdict(chosen) | {"used": method})


def _check(params: CovisibilityParams) -> None:
    if params.method not in METHODS:
        raise UsageError("Unknown method", expected=", ".join(METHODS), found=params.method)
    if params.points < 1 or params.max_frames < 1 or (params.tolerance is not None and params.tolerance <= 0):
        raise UsageError("A parameter is out of range", expected="positive numbers", found=params)


def _method(scene: Scene) -> str:
    motion = scene.motion
    has_points = motion.points_world is not None and any(
        (state == Visibility.VISIBLE).any() for state in motion.point_state.values()
    )
    if not has_points:
        return "depth"
    shares = [_known_share(view, t) for view in scene.views.values() for t in _spread(view.num_frames)]
    return "depth" if np.median(shares) >= _SPARSE else "points"


def _spread(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, _FRAMES_LOOKED_AT).astype(int)).tolist()


def _known_share(view: View, t: int) -> float:
    z_depth = view.z_depth(t)
    return 0.0 if z_depth is None else float(np.isfinite(z_depth).mean())


def _frames(
    scene: Scene, most: int, method: str, among: Sequence[tuple[str, int]] | None
) -> list[tuple[str, int]]:
    """List frames with a pose (and a depth layer, where it is needed), evenly thinned to at most `most`."""
    frames = [
        (name, int(t))
        for name, view in scene.views.items()
        if method == "points" or "z_depth" in view.layers
        for t in np.flatnonzero(view.pose_is_known)
    ]
    if among is not None:
        wanted = set(among)
        frames = [frame for frame in frames if frame in wanted]
    if len(frames) <= most:
        return frames
    return [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]


def _by_points(scene: Scene, frames: list[tuple[str, int]]) -> NDArray[np.float32]:
    motion = scene.motion
    static = motion.instance_ids[motion.instance_motion == MotionKind.STATIC]
    kept = np.isin(motion.point_instance, static) if motion.point_instance is not None else np.zeros(0, bool)
    none = np.zeros(0, np.int64)
    rows = [
        np.flatnonzero(motion.point_state[view][kept, t] == Visibility.VISIBLE)
        if view in motion.point_state
        else none
        for view, t in frames
    ]
    ends = np.cumsum([0, *map(len, rows)])
    # A point is seen by few frames: the cost is that of all pairs of looks at one point, not of frames x points.
    looks = (np.ones(ends[-1], np.int32), np.concatenate([none, *rows]), ends)
    seen = csr_matrix(looks, shape=(len(frames), int(kept.sum())))
    sizes = np.diff(ends)
    return _shares((seen @ seen.T).toarray(), np.broadcast_to(sizes[:, None], (len(frames), len(frames))))


def _by_depth(scene: Scene, frames: list[tuple[str, int]], params: CovisibilityParams) -> NDArray[np.float32]:
    clouds: list[Float] = []
    for view, t in frames:
        frame = depth_frame(scene.views[view], t, scene.motion, params.tolerance)
        rng = np.random.default_rng([params.seed, list(scene.views).index(view), t])
        clouds.append(np.zeros((0, 3)) if frame is None else draw_points(frame, params.points, rng))
    sizes = [len(cloud) for cloud in clouds]
    points = np.concatenate(clouds) if clouds else np.zeros((0, 3))
    owner = np.repeat(np.arange(len(frames)), sizes)
    seen, known = (np.zeros((len(frames), len(frames)), np.int32) for _ in range(2))
    for j, (view, t) in enumerate(frames):
        frame = depth_frame(scene.views[view], t, None, params.tolerance)
        if frame is None:
            continue
        state = look(frame, points)
        seen[:, j] = np.bincount(owner[state == Visibility.VISIBLE], minlength=len(frames))
        known[:, j] = np.bincount(owner[state != Visibility.UNKNOWN], minlength=len(frames))
    return _shares(seen, known)


def _shares(seen: NDArray[Any], known: NDArray[Any]) -> NDArray[np.float32]:
    out = np.full(seen.shape, np.nan, np.float32)
    np.divide(seen, known, out=out, where=known > 0, dtype=np.float32, casting="unsafe")
    return out
