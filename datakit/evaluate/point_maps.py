"""Point maps and clouds against truth, as D4RT, CUT3R, Depth-Anything-3 and MoGe measure them."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from datakit.errors import ConventionError, UsageError
from datakit.geometry import umeyama

from .depth_fit import fit_weighted_affine, fit_weighted_scale, nearest_on_grid

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
PointAlign = Literal["none", "shift", "scale", "affine"]

#: Open3D's defaults of registration_icp, which CUT3R uses: steps, and changes that end it.
_ICP_STEPS, _ICP_TOLERANCE = 30, 1e-6
_NEIGHBOURS = 30
_MOGE_EPS, _MOGE_GRID, _LOCAL_LEAST = 1e-6, 64, 10
#: Depth ratios less 1 that make an edge; also the weights of their scores (moge/test/metrics.py: boundary_f1).
_EDGE_RATIOS = np.linspace(0.05, 0.25, 10, dtype=np.float32).astype(np.float64)


def mean_shift_l1(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """Score points after their means are made equal; no scale is fitted (D4RT, arXiv 2512.08924 §4).

    Args:
        predicted: (..., 3); a point that is not finite makes the error infinite and is left out of the means.
        target: (..., 3) metres; not finite is unknown.
        mask: (...) bool, points that may count; None for all.

    Returns:
        l1 (mean over coordinates), l1_sum (mean over points of the sum of three: the paper does not say which),
        num_points, num_unanswered; NaN without a point.
    """
    ours, theirs = _known(predicted, target, mask)
    answered = np.isfinite(ours).all(axis=1)
    out = {"num_points": float(len(theirs)), "num_unanswered": float((~answered).sum())}
    if not len(theirs):
        return {"l1": float("nan"), "l1_sum": float("nan"), **out}
    if not answered.all():
        return {"l1": float("inf"), "l1_sum": float("inf"), **out}
    off = np.abs((ours - ours.mean(axis=0)) - (theirs - theirs.mean(axis=0)))
    return {"l1": float(off.mean()), "l1_sum": float(off.sum(axis=1).mean()), **out}


def align_scale_z(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> Float:
    """Scale and move points along z to truth by medians, as the DUSt3R family's scale-and-shift criterion.

    Medians of z are made equal, then the medians of the norms about (0, 0, median z).

    Args:
        predicted: (..., 3) in the camera whose z is moved along.
        target: (..., 3).
        mask: (...) bool; None for all.

    Returns:
        (..., 3) float64 in the target's frame; NaN if nothing fixes a scale.
    """
    points = np.asarray(predicted, np.float64)
    ours, theirs = _known(predicted, target, mask)
    answered = np.isfinite(ours).all(axis=1)
    ours, theirs = ours[answered], theirs[answered]
    if not len(ours):
        return np.full_like(points, np.nan)
    centres = [np.array([0.0, 0.0, np.median(own[:, 2])]) for own in (ours, theirs)]
    sizes = [
        np.median(np.linalg.norm(own - c, axis=1)) for own, c in zip((ours, theirs), centres, strict=True)
    ]
    if sizes[0] == 0:
        return np.full_like(points, np.nan)
    return np.asarray((points - centres[0]) * (sizes[1] / sizes[0]) + centres[1])


def icp(predicted: ArrayLike, target: ArrayLike, max_distance: float = 0.1) -> Float:
    """Find the rigid motion that brings a cloud onto truth, point to point, from where it stands.

    As Open3D's registration_icp with its defaults (30 steps, ended by changes below 1e-6 of the share matched and of
    the rmse), which CUT3R calls with 0.1 m (100 for DTU); written here, so that Open3D is not needed.

    Args:
        predicted: (N, 3), finite.
        target: (M, 3), finite.
        max_distance: Greatest distance of a match.

    Returns:
        (4, 4) target_from_predicted; the identity if too few points match.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    motion = np.eye(4)
    if not len(ours) or not len(theirs):
        return motion
    tree = cKDTree(theirs)
    before: tuple[float, float] | None = None
    for step in range(_ICP_STEPS + 1):
        moved = ours @ motion[:3, :3].T + motion[:3, 3]
        distance, index = tree.query(moved, distance_upper_bound=max_distance)
        near = np.isfinite(distance)
        now = (float(near.mean()), float(np.sqrt(np.square(distance[near]).mean())) if near.any() else 0.0)
        if step == _ICP_STEPS or (
            before is not None and np.abs(np.subtract(now, before)).max() < _ICP_TOLERANCE
        ):
            break
        before = now
        try:
            _, rotation, shift = umeyama(moved[near], theirs[index[near]], with_scale=False)
        except ConventionError:
            break
        change = np.eye(4)
        change[:3, :3], change[:3, 3] = rotation, shift
        motion = change @ motion
    return motion


def reconstruction(
    predicted: ArrayLike,
    target: ArrayLike,
    predicted_normals: ArrayLike | None = None,
    target_normals: ArrayLike | None = None,
    *,
    icp_distance: float | None = 0.1,
) -> dict[str, float]:
    """Score a cloud by nearest neighbours (CUT3R 8bc15dc, eval/mv_recon/launch.py:205-310, utils.py).

    Args:
        predicted: (N, 3), already scaled (`align_scale_z`); points that are not finite are left out.
        target: (M, 3) metres.
        predicted_normals: (N, 3) unit, or None to estimate them.
        target_normals: (M, 3) unit, or None to estimate them.
        icp_distance: Of `icp` beforehand, metres; None for no ICP.

    Returns:
        accuracy (prediction to truth) and completeness (truth to prediction), metres, with _median; nc1 and nc2, mean
        |dot| of normals in those directions, with _median, and normal_consistency, their mean. NaN if a cloud is
        empty, but completeness is infinite if only the prediction is.
    """
    names = ("accuracy", "completeness", "nc1", "nc2")
    ours, our_normals = _cloud(predicted, predicted_normals)
    theirs, their_normals = _cloud(target, target_normals)
    if not len(ours) or not len(theirs):
        out = {f"{name}{end}": float("nan") for name in names for end in ("", "_median")}
        if len(theirs):
            out |= {"completeness": float("inf"), "completeness_median": float("inf")}
        return out | {"normal_consistency": float("nan")}
    if icp_distance is not None:
        motion = icp(ours, theirs, icp_distance)
        ours, our_normals = ours @ motion[:3, :3].T + motion[:3, 3], our_normals @ motion[:3, :3].T
    to_truth, at_truth = cKDTree(theirs).query(ours)
    to_ours, at_ours = cKDTree(ours).query(theirs)
    values = {
        "accuracy": to_truth,
        "completeness": to_ours,
        "nc1": np.abs((our_normals * their_normals[at_truth]).sum(axis=1)),
        "nc2": np.abs((their_normals * our_normals[at_ours]).sum(axis=1)),
    }
    out = {name: float(value.mean()) for name, value in values.items()}
    out |= {f"{name}_median": float(np.median(value)) for name, value in values.items()}
    return out | {"normal_consistency": (out["nc1"] + out["nc2"]) / 2}


def precision_recall(
    predicted: ArrayLike, target: ArrayLike, threshold: float = 0.05, *, official: bool = False
) -> dict[str, float]:
    """Score a cloud as Depth-Anything-3 does (2c21ea8, bench/utils.py:60-125).

    Args:
        predicted: (N, 3); points that are not finite are left out.
        target: (M, 3) metres.
        threshold: Metres; strictly nearer counts.
        official: Add what the official function gives of an empty cloud: distances infinite, shares 0.

    Returns:
        acc, comp, overall (metres), precision, recall, fscore. Without truth all are NaN; without a prediction acc and
        precision are NaN, comp and overall infinite, recall and fscore 0, for nothing of truth was found.
    """
    ours, theirs = (points[np.isfinite(points).all(axis=1)] for points in map(_rows, (predicted, target)))
    nan, inf = float("nan"), float("inf")
    if not len(theirs):
        out = dict.fromkeys(("acc", "comp", "overall", "precision", "recall", "fscore"), nan)
    elif not len(ours):
        out = {"acc": nan, "comp": inf, "overall": inf, "precision": nan, "recall": 0.0, "fscore": 0.0}
    else:
        to_truth, to_ours = cKDTree(theirs).query(ours)[0], cKDTree(ours).query(theirs)[0]
        acc, comp = float(to_truth.mean()), float(to_ours.mean())
        precision, recall = float((to_truth < threshold).mean()), float((to_ours < threshold).mean())
        both = precision + recall
        fscore = 2 * precision * recall / both if both > 0 else 0.0
        out = dict(zip(("acc", "comp", "overall"), (acc, comp, (acc + comp) / 2), strict=True))
        out |= {"precision": precision, "recall": recall, "fscore": fscore}
    if official:
        empty = not len(ours) or not len(theirs)
        far = dict.fromkeys(("acc", "comp", "overall"), inf)
        said = far | dict.fromkeys(("precision", "recall", "fscore"), 0.0) if empty else dict(out)
        out |= {f"{name}_official": value for name, value in said.items()}
    return out


def moge_points(
    predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, align: PointAlign = "scale"
) -> dict[str, float]:
    """Score a point map of one image as MoGe does (0744441, moge/test/metrics.py).

    Args:
        predicted: (H, W, 3) in the camera; not finite counts as infinitely wrong.
        target: (H, W, 3) in the camera.
        mask: (H, W) bool, known truth.
        align: L1 fit with weights 1 / |g| on a masked-nearest 64 x 64 grid: `shift` (their metric points), `scale`,
            `affine` (scale and shift), or `none`.

    Returns:
        rel_point, mean |p - g| / (|g| + 1e-6); delta1_point, share with |p - g| < min(|g|, |p|) / 4; scale;
        num_points. NaN without a point.

    Raises:
        UsageError: An alignment is unknown.
    """
    if align not in get_args(PointAlign):
        raise UsageError(
            "Unknown alignment", where="align", expected=", ".join(get_args(PointAlign)), found=align
        )
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    known = np.asarray(mask, bool) & np.isfinite(theirs).all(axis=-1)
    rows, columns, found = nearest_on_grid(known, _MOGE_GRID)
    p, g = ours[rows, columns][found], theirs[rows, columns][found]
    use = np.isfinite(p).all(axis=1)
    scale, shift = _fit_moge(p[use], g[use], 1 / np.linalg.norm(g[use], axis=1), align)
    out = _point_errors(scale * ours[known] + shift, theirs[known])
    return out | {"scale": scale, "num_points": float(known.sum())}


def moge_local_points(
    predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, segments: ArrayLike
) -> dict[str, float]:
    """Score each segment of a point map after its own affine fit, relative to its extent (MoGe's local points).

    Args:
        predicted: (H, W, 3).
        target: (H, W, 3).
        mask: (H, W) bool.
        segments: (H, W) int; 0 is none. Segments with fewer than 10 points on the 64 x 64 grid are left out.

    Returns:
        rel_point_local, delta1_point_local, means over segments; num_segments. NaN without one.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    known = np.asarray(mask, bool) & np.isfinite(theirs).all(axis=-1)
    labels = np.asarray(segments)
    rows, columns, found = nearest_on_grid(known, _MOGE_GRID)
    values = []
    for label in np.unique(labels[known & (labels > 0)]).tolist():
        inside, on_grid = known & (labels == label), found & (labels[rows, columns] == label)
        p, g = ours[rows, columns][on_grid], theirs[rows, columns][on_grid]
        use = np.isfinite(p).all(axis=1)
        if on_grid.sum() < _LOCAL_LEAST:
            continue
        extent = float(np.ptp(theirs[inside], axis=0).max())
        scale, shift = _fit_moge(p[use], g[use], np.full(int(use.sum()), 1 / extent), "affine")
        error = np.linalg.norm(scale * ours[inside] + shift - theirs[inside], axis=1)
        error = np.where(np.isfinite(error), error, np.inf)
        values.append(((error / extent).mean(), (error < 0.25 * extent).mean()))
    rel, delta = np.mean(values, axis=0) if values else (np.nan, np.nan)
    return {
        "rel_point_local": float(rel),
        "delta1_point_local": float(delta),
        "num_segments": float(len(values)),
    }


def fov_error(predicted: ArrayLike, target: ArrayLike, width: float) -> dict[str, float]:
    """Compare horizontal fields of view of two intrinsics (3, 3) of one width; fov_x_mae, fov_x_deviation, degrees."""
    ours, theirs = (
        2 * np.degrees(np.arctan(width / 2 / np.asarray(k, np.float64)[0, 0])) for k in (predicted, target)
    )
    return {"fov_x_mae": float(abs(ours - theirs)), "fov_x_deviation": float(ours - theirs)}


def boundary_f1(
    predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, radius: int = 1, *, official: bool = False
) -> dict[str, float]:
    """Score where depth jumps (MoGe 0744441, moge/test/metrics.py: boundary_f1).

    An edge is an ordered pair of pixels within `radius` whose depths have a ratio above 1 + t, t in ten steps from
    0.05 to 0.25; F1 is averaged over t with weights t. A ratio at which neither map has an edge is undefined and left
    out (the official function counts it as 0, so that a perfect prediction of a smooth scene fails).

    Args:
        predicted: (H, W) z depth.
        target: (H, W) z depth.
        mask: (H, W) bool: both pixels of a pair must be known.
        radius: Pixels.
        official: Add boundary_f1_official.

    Returns:
        boundary_f1, num_ratios_undefined; NaN if no ratio is defined.
    """
    ours, theirs, known = np.asarray(predicted), np.asarray(target), np.asarray(mask, bool)
    side = 2 * radius + 1
    if min(theirs.shape) < side:
        f1, defined = np.zeros(len(_EDGE_RATIOS)), np.zeros(len(_EDGE_RATIOS), bool)
    else:
        f1, defined = _edge_f1(ours, theirs, known, radius, side)
    weights = np.where(defined, _EDGE_RATIOS, 0.0)
    out = {
        "boundary_f1": float((weights * f1).sum() / weights.sum()) if defined.any() else float("nan"),
        "num_ratios_undefined": float((~defined).sum()),
    }
    if official:
        out["boundary_f1_official"] = float((_EDGE_RATIOS * f1).sum() / _EDGE_RATIOS.sum())
    return out


def _edge_f1(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], known: Mask, radius: int, side: int
) -> tuple[Float, Mask]:
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
    inner = (slice(radius, -radius), slice(radius, -radius))
    valid = disc & sliding_window_view(known, (side, side)) & known[inner][..., None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (
            (sliding_window_view(z, (side, side)) / z[inner][..., None, None])[valid] for z in (ours, theirs)
        )
    f1, defined = [], []
    for ratio in _EDGE_RATIOS:
        edge, truth = a > 1 + ratio, b > 1 + ratio
        both, either = int((edge & truth).sum()), int(edge.sum() + truth.sum())
        f1.append(2 * both / either if either else 0.0)
        defined.append(either > 0)
    return np.array(f1), np.array(defined)


def _fit_moge(p: Float, g: Float, weight: Float, align: PointAlign) -> tuple[float, Float]:
    if align == "none":
        return 1.0, np.zeros(3)
    if not len(p):
        return float("nan"), np.full(3, np.nan)
    if align == "shift":
        return 1.0, np.array([fit_weighted_scale(np.ones(len(p)), (g - p)[:, i], weight) for i in range(3)])
    if align == "scale":
        return fit_weighted_scale(p.ravel(), g.ravel(), np.repeat(weight, 3)), np.zeros(3)
    return fit_weighted_affine(p, g, weight)


def _point_errors(ours: Float, theirs: Float) -> dict[str, float]:
    if not len(theirs):
        return {"rel_point": float("nan"), "delta1_point": float("nan")}
    size, error = np.linalg.norm(theirs, axis=1), np.linalg.norm(ours - theirs, axis=1)
    error = np.where(np.isfinite(error), error, np.inf)
    near = error < 0.25 * np.minimum(size, np.linalg.norm(ours, axis=1))
    return {"rel_point": float((error / (size + _MOGE_EPS)).mean()), "delta1_point": float(near.mean())}


def _known(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike | None) -> tuple[Float, Float]:
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    allowed = np.ones(theirs.shape[:-1], bool) if mask is None else np.asarray(mask, bool)
    if ours.shape != theirs.shape or theirs.shape[-1:] != (3,) or allowed.shape != theirs.shape[:-1]:
        raise UsageError(
            "Points do not fit each other",
            expected="points (..., 3) and mask (...)",
            found=(ours.shape, theirs.shape, allowed.shape),
        )
    use = allowed & np.isfinite(theirs).all(axis=-1)
    return ours[use], theirs[use]


def _rows(points: ArrayLike) -> Float:
    return np.asarray(points, np.float64).reshape(-1, 3)


def _cloud(points: ArrayLike, normals: ArrayLike | None) -> tuple[Float, Float]:
    own = _rows(points)
    finite = np.isfinite(own).all(axis=1)
    own = own[finite]
    return own, estimate_normals(own) if normals is None else _rows(normals)[finite]


def estimate_normals(points: ArrayLike, neighbours: int = _NEIGHBOURS) -> Float:
    """Estimate unit normals, of either sign, as the least direction of each point's neighbours (Open3D's default 30).

    Args:
        points: (N, 3), finite.
        neighbours: How many, the point itself among them.

    Returns:
        (N, 3) float64.
    """
    own = _rows(points)
    if len(own) < 3:
        return np.tile([0.0, 0.0, 1.0], (len(own), 1))
    _, index = cKDTree(own).query(own, k=min(neighbours, len(own)))
    around = own[index] - own[index].mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.eigh(np.swapaxes(around, 1, 2) @ around)[1][:, :, 0])
