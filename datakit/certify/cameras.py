"""Poses and intrinsics by themselves."""

from __future__ import annotations

import numpy as np

from datakit import geometry as g
from datakit.scene import View

from .certificate import FAIL, NOT_TESTABLE, PASS, CheckResult, Measure, make_check
from .judge import Context, upper_verdict
from .knobs import BAD_POSE, HALF_PIXEL_DEPTH, OTHER_K
from .raster import Float
from .sampling import usable_frames
from .thresholds import Limit

#: An image of which three eighths of the rows are cut away on one side is off centre by so much along that axis, ...
_CUT = 0.3
#: ... and by no more than this, as whole images are, along the other.
_CENTRED = 0.08


def check_poses(context: Context) -> CheckResult:
    """Check that known poses are rigid and that none jumps out of the trajectory."""
    views = [view for view in context.frames.scene.views.values() if view.pose_is_known.any()]
    if not views:
        return make_check("pose", (), "no pose is known")
    poses = np.concatenate([view.world_from_cam[view.pose_is_known] for view in views])
    measures = [_rigidity(context, poses)]
    if measures[0].verdict != FAIL:
        measures += _jumps(context, views)
    return make_check("pose", measures)


def _rigidity(context: Context, poses: Float) -> Measure:
    rotation = poses[:, :3, :3]
    with np.errstate(invalid="ignore"):
        off = np.abs(rotation.swapaxes(1, 2) @ rotation - np.eye(3)).max(axis=(1, 2))
        off = np.maximum(off, np.abs(np.linalg.det(rotation) - 1) if np.isfinite(rotation).all() else np.inf)
        off = np.maximum(off, np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1))
    off = np.where(np.isfinite(poses).all(axis=(1, 2)), off, np.inf)
    limit = context.limit("pose", "rigidity")
    worst = float(off.max())
    verdict = upper_verdict(worst, limit)
    reason = (
        "" if verdict == PASS else f"{int((off > (limit.warn or 0)).sum())} poses are not rigid or not finite"
    )
    return Measure("rigidity", limit.unit, worst, verdict, limit.warn, limit.fail, len(poses), reason=reason)


def _jumps(context: Context, views: list[View]) -> list[Measure]:
    """Judge the largest acceleration of each trajectory against its usual one."""
    limit_move, limit_turn = context.limit("pose", "jump"), context.limit("pose", "turn_jump")
    moves, turns = [], []
    for view in views:
        frames = np.flatnonzero(view.pose_is_known)
        if context.frames.scene.time_kind != "sequence" or len(frames) < 5:
            continue
        poses = view.world_from_cam[frames]
        steady = np.diff(frames)[1:] == np.diff(frames)[:-1]
        depth = _typical_depth(context, view)
        # A camera at rest shakes by rounding; a thousandth of the scene's depth is less than a pixel.
        moves.append(
            _excess(
                np.linalg.norm(np.diff(poses[:, :3, 3], 2, axis=0), axis=1)[steady],
                np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1),
                1e-3 * depth,
            )
        )
        step = poses[:-1, :3, :3].swapaxes(1, 2) @ poses[1:, :3, :3]
        change = step[:-1].swapaxes(1, 2) @ step[1:]
        turns.append(_excess(g.rotation_angle(change)[steady], g.rotation_angle(step), np.radians(0.05)))
    return [_jump_measure("jump", limit_move, moves), _jump_measure("turn_jump", limit_turn, turns)]


def _jump_measure(name: str, limit: Limit, values: list[float]) -> Measure:
    bounds, sees = (limit.warn, limit.fail, len(values)), (BAD_POSE,)
    if not values:
        reason = "no sequence of five frames with known poses"
        return Measure(name, limit.unit, None, NOT_TESTABLE, *bounds, reason=reason, sees=sees)
    worst = max(values)
    verdict = upper_verdict(worst, limit)
    reason = "" if verdict == PASS else f"a pose leaves its trajectory by {worst:.3g} times the usual change"
    return Measure(name, limit.unit, worst, verdict, *bounds, reason=reason, sees=sees)


def _excess(acceleration: Float, speed: Float, floor: float) -> float:
    if not len(acceleration):
        return 0.0
    usual = max(float(np.median(acceleration)), 0.25 * float(np.median(speed)), floor)
    return float(acceleration.max() / usual)


def _typical_depth(context: Context, view: View) -> float:
    frames = usable_frames(view)
    if not len(frames):
        return 1.0
    inverse = context.frames.get(view.name, int(frames[0])).inverse_depth
    known = inverse[np.isfinite(inverse)]
    return float(1.0 / np.median(known)) if len(known) else 1.0


def check_intrinsics(context: Context) -> CheckResult:
    """Check that K fits its image, and that the layers' grids show the same field of view."""
    views = list(context.frames.scene.views.values())
    centre, aspect, field_of_view = [], [], []
    for view in views:
        size = np.array(view.size, dtype=np.float64)
        k = view.intrinsics
        centre.append(off_centre(k, view.size))
        aspect.append(np.abs(np.log(k[:, 0, 0] / k[:, 1, 1])).max())
        field_of_view.append(np.abs(np.log(k[:, 0, 0] / size.max())).max())
    measures = [
        _largest(context, "off_centre", centre, (OTHER_K,)),
        _largest(context, "aspect", aspect, (OTHER_K,)),
        _largest(context, "focal_length", field_of_view, ()),
    ]
    borders, offsets = _grid_relations(views)
    if borders:
        measures.append(_largest(context, "grid_border", borders, (OTHER_K,)))
    if offsets:
        measures.append(_largest(context, "grid_offset", offsets, (HALF_PIXEL_DEPTH,)))
    return make_check("intrinsics", measures)


def off_centre(intrinsics: Float, size: tuple[int, int]) -> float:
    """Tell how far principal points are from where a whole image has them, as a share of the image.

    A K of another resolution is off along both axes by the same share. An image that was cut from a larger one along
    one axis is off along that one alone: Waymo's side cameras keep 886 of 1280 rows and are off by 0.2. So where one
    axis is centred, only what is beyond `_CUT` counts of the other.

    Args:
        intrinsics: (T, 3, 3) px, corner origin.
        size: (W, H).
    """
    off = np.abs(intrinsics[:, :2, 2] / np.array(size, dtype=np.float64) - 0.5)
    less, more = off.min(axis=1), off.max(axis=1)
    return float(np.where(less <= _CENTRED, np.maximum(less, more - _CUT), more).max())


def _largest(context: Context, name: str, values: list[float], sees: tuple[str, ...]) -> Measure:
    limit = context.limit("intrinsics", name)
    worst = float(max(values))
    verdict = upper_verdict(worst, limit)
    reason = "" if verdict == PASS else f"is {worst:.3g} {limit.unit}"
    return Measure(
        name, limit.unit, worst, verdict, limit.warn, limit.fail, len(values), reason=reason, sees=sees
    )


def _grid_relations(views: list[View]) -> tuple[list[float], list[float]]:
    """Measure how far each layer's borders are from the colour image's.

    Returns:
        For layers with their own K: the largest distance of mapped image corners from the layer's corners as a
        share of the layer; and for layers of the image's own size the shift of the centre in px.
    """
    borders, offsets = [], []
    for view in views:
        width, height = view.size
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
        for layer in view.layers:
            own = view.layer_intrinsics(layer)
            if np.array_equal(own, view.intrinsics):
                continue
            size = np.array(view.layer_size(layer), dtype=np.float64)
            mapped = g.homography_points(own @ np.linalg.inv(view.intrinsics), corners[:, None])
            ideal = corners * size / view.size
            borders.append(float((np.abs(mapped - ideal[:, None]) / size).max()))
            if tuple(view.layer_size(layer)) == (width, height):
                middle = mapped.mean(axis=0) - size / 2
                offsets.append(float(np.abs(middle).max()))
    return borders, offsets
