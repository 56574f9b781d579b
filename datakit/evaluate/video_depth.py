"""Depth of a clip against truth, by each protocol that numbers are published under.

What a protocol fixes is data (`PROTOCOLS`): how prediction and truth come to one size, which pixels count, what is
fitted, what is clipped, how frames are averaged. The same model moves by tens of percent between them, so a number
without its protocol says little. Sources: CUT3R 8bc15dc and MonST3R 574cc77 (eval/video_depth/tools.py,
eval_depth.py), Video-Depth-Anything 4f5ae23 and DepthCrafter e518612 (benchmark/eval/eval.py, metric.py), mega-sam
c2e0099 (evaluate_depth_ours_sintel.py), MoGe 0744441 (moge/test/metrics.py), D4RT arXiv 2512.08924 §4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError
from datakit.geometry import camera_rays, invert_rigid, pixel_centres

from .depth_fit import (
    Fit,
    fit_centred_medians,
    fit_disparity,
    fit_l1,
    fit_l1_adam,
    fit_l1_scale,
    fit_lower_median,
    fit_points,
    fit_weighted_affine,
    fit_weighted_scale,
    lower_median,
    nearest_on_grid,
)

Alignment = Literal["scale", "median", "none"]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Least prediction that ratios are taken of (tools.py, before the threshold accuracies).
_RATIO_FLOOR = 1e-5
#: Added to true depth under MoGe's relative error (metrics.py:23).
_MOGE_EPS = 1e-6
#: Any dataset that a protocol does not name.
_ANY = "*"
_MOGE_GRID = 64


@dataclass(frozen=True)
class Protocol:
    """How depth is compared.

    Attributes:
        align: What is fitted to truth, once for the clip (MoGe: for each frame).
        resize: Of the prediction to the truth's size by OpenCV, or of truth to the prediction's (`truth_nearest`).
        space: What is resized and fitted.
        min_depth: True depth must be greater, metres.
        max_depth: Dataset -> true depth must be less; None for no bound. `*` is any other dataset.
        clip_before: Bounds of both before the fit.
        clip_after: Dataset -> least and greatest depth of the fitted prediction; None for no bound.
        average: Over a clip: `pixels`, the mean over its pixels; `frames`, the mean of each frame, then over frames.
        clips: Over clips: `pixels`, weighted by their pixels that count; `videos`, alike.
        is_stated: False if the source leaves something open, which `note` says how we closed.
        note: What one must know.
        source: Where it comes from.
    """

    align: str
    resize: Literal["cubic", "bilinear", "truth_nearest"]
    average: Literal["pixels", "frames"]
    source: str
    clips: Literal["pixels", "videos"] = "videos"
    space: Literal["depth", "disparity"] = "depth"
    min_depth: float = 0.0
    max_depth: Mapping[str, float | None] = field(default_factory=lambda: {_ANY: None})
    clip_before: tuple[float, float] | None = None
    clip_after: Mapping[str, tuple[float | None, float | None]] = field(
        default_factory=lambda: {_ANY: (None, None)}
    )
    is_stated: bool = True
    note: str = ""


_CUT3R = Protocol(
    "l1_scale",
    "cubic",
    "pixels",
    "CUT3R 8bc15dc eval/video_depth/tools.py:238-269, eval_depth.py:115,160-169",
    clips="pixels",
    max_depth={"sintel": 70.0, "bonn": 70.0, _ANY: None},
    clip_after={"sintel": (None, 70.0), _ANY: (None, None)},
)
_DISPARITY = Protocol(
    "disparity",
    "bilinear",
    "frames",
    "Video-Depth-Anything 4f5ae23 benchmark/eval/eval.py:66-121, metric.py",
    space="disparity",
    min_depth=1e-3,
    max_depth={"sintel": 70.0, "kitti": 80.0, "bonn": 10.0, "scannet": 10.0, "nyu": 10.0, _ANY: 80.0},
    clip_after={
        "sintel": (1e-3, 70.0),
        "kitti": (1e-3, 80.0),
        "bonn": (1e-3, 10.0),
        "scannet": (1e-3, 10.0),
        "nyu": (1e-3, 10.0),
        _ANY: (1e-3, 80.0),
    },
)
_MOGE = Protocol(
    "weighted_l1_scale",
    "bilinear",
    "frames",
    "MoGe 0744441 moge/test/metrics.py:145-182",
    note="fitted for each frame on a masked-nearest 64 x 64 grid with weights 1 / truth",
)
_D4RT = Protocol(
    "l1_scale",
    "bilinear",
    "pixels",
    "D4RT arXiv 2512.08924 §4",
    is_stated=False,
    note="mask, resize, fit and averaging are ours: one L1 scale for the clip, all known pixels, clip mean",
)

#: Name -> protocol; the names are those of docs/metrics.md.
PROTOCOLS: dict[str, Protocol] = {
    "cut3r_scale": _CUT3R,
    "cut3r_scale_shift": replace(
        _CUT3R,
        align="l1_adam",
        source="CUT3R 8bc15dc eval/video_depth/tools.py:72-123, 226-237 (align_with_lad2)",
        note="1000 Adam steps of 1e-4 move the shift by one or two tenths; *_lad are of the true minimum",
    ),
    "metric": replace(_CUT3R, align="none"),
    "monst3r_median": replace(
        _CUT3R,
        align="lower_median",
        max_depth={_ANY: 80.0},
        clip_after={_ANY: (None, None)},
        source="MonST3R 574cc77 dust3r/depth_eval.py",
        note="of an even number of pixels the lower middle one, as torch.median",
    ),
    "depthcrafter": replace(_DISPARITY, source="DepthCrafter e518612 benchmark/eval/eval.py"),
    "vda": _DISPARITY,
    "megasam_sintel": Protocol(
        "centred_medians",
        "truth_nearest",
        "pixels",
        "mega-sam c2e0099 evaluations_depth/evaluate_depth_ours_sintel.py:60-106",
        min_depth=0.1,
        max_depth={_ANY: 100.0},
        clip_before=(0.1, 100.0),
        is_stated=False,
        note="truth comes to the prediction's size by nearest pixels; scenes are averaged alike",
    ),
    "moge": _MOGE,
    "moge_affine": replace(_MOGE, align="weighted_l1_affine"),
    "d4rt_s": _D4RT,
    "d4rt_ss": replace(
        _D4RT,
        align="points",
        note="scale and 3D translation by least squares on points if intrinsics are given, else scale and shift "
        "of depth; mask, resize and averaging are ours",
    ),
}

_FITS: dict[str, Callable[[Float, Float], Fit]] = {
    "none": lambda _d, _g: (1.0, 0.0),
    "l1_scale": fit_l1_scale,
    "l1_adam": fit_l1_adam,
    "lower_median": fit_lower_median,
    "centred_medians": fit_centred_medians,
    "disparity": fit_disparity,
}
_SCORES = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta1", "delta2", "delta3")


def protocol_settings(name: str, dataset: str = _ANY) -> dict[str, Any]:
    """Return what a protocol fixes for a dataset, JSON-able.

    Raises:
        UsageError: There is no such protocol.
    """
    rules = _protocol(name)
    out = asdict(rules) | {"protocol": name}
    return out | {
        "max_depth": _of(rules.max_depth, dataset),
        "clip_after": list(_of(rules.clip_after, dataset)),
    }


def video_depth(
    predicted: ArrayLike,
    target: ArrayLike,
    protocol: str,
    *,
    dataset: str = _ANY,
    mask: ArrayLike | None = None,
    is_disparity: bool = False,
    intrinsics: ArrayLike | None = None,
    predicted_intrinsics: ArrayLike | None = None,
    official: bool = False,
) -> dict[str, float]:
    """Score the depth of one clip.

    Args:
        predicted: (T, h, w) z depth of any unit; NaN (no answer) is left out of the fit and counts as infinitely
            wrong, so that nothing is gained by not answering.
        target: (T, H, W) z depth, metres; not finite or not positive is unknown.
        protocol: One of `PROTOCOLS`.
        dataset: Chooses bounds: sintel, kitti, bonn, scannet, nyu, or any other name.
        mask: (T, H, W) bool, pixels that may count; None for all.
        is_disparity: The prediction is 1 / depth already, which disparity protocols take as it is.
        intrinsics: (T, 3, 3) or (3, 3) px of the truth's size; d4rt_ss fits points with it.
        predicted_intrinsics: The same of the prediction, px of the prediction's size; None for `intrinsics` scaled.
        official: Add the official script's value of a clip where it differs, as `<name>_official`.

    Returns:
        abs_rel, sq_rel, rmse, log_rmse, delta1, delta2, delta3, scale, shift, num_valid, num_frames,
        num_unanswered; abs_rel_lad and delta1_lad with cut3r_scale_shift. NaN if no pixel counts.

    Raises:
        UsageError: Shapes differ, or the protocol is unknown.
    """
    rules = _protocol(protocol)
    ours, theirs = _clip_arrays(predicted, target)
    allowed = np.ones(theirs.shape, bool) if mask is None else np.asarray(mask, bool)
    if allowed.shape != theirs.shape:
        raise UsageError("A mask does not fit its depth", expected=theirs.shape, found=allowed.shape)
    if (rules.space == "disparity") != is_disparity:
        ours = _inverse(ours)
    native = ours.shape
    ours, theirs, allowed = _to_one_size(ours, theirs, allowed, rules.resize)
    upper = _of(rules.max_depth, dataset)
    with np.errstate(invalid="ignore"):
        known = allowed & np.isfinite(theirs) & (theirs > rules.min_depth)
        known &= theirs < (np.inf if upper is None else upper)
    cameras = _cameras(intrinsics, predicted_intrinsics, native, theirs.shape)
    fitted, (scale, shift) = _align(ours, theirs, known, rules, cameras)
    fitted = _clip(fitted, _of(rules.clip_after, dataset))
    eps = _MOGE_EPS if protocol.startswith("moge") else 0.0
    out = _scores(fitted, theirs, known, rules.average, eps)
    unanswered = int((known & ~np.isfinite(ours)).sum())
    out |= {"scale": scale, "shift": shift, "num_valid": float(known.sum()), "num_frames": float(len(theirs))}
    out["num_unanswered"] = float(unanswered)
    if rules.align == "l1_adam":
        pair = _pairs(ours, theirs, known)
        best = fit_l1(*pair) if len(pair[0]) else (float("nan"), float("nan"))
        of_best = _scores(
            _clip(best[0] * ours + best[1], _of(rules.clip_after, dataset)), theirs, known, rules.average, eps
        )
        out |= {f"{name}_lad": of_best[name] for name in ("abs_rel", "delta1")}
    return out | (_official(out, rules, unanswered) if official else {})


def tae(
    z_depth: ArrayLike,
    world_from_cam: ArrayLike,
    intrinsics: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    official: bool = False,
) -> dict[str, float]:
    """Score how depths of neighbouring frames agree: TAE (Video-Depth-Anything 4f5ae23, eval_tae.py:60).

    Depth of a frame is moved into the next by the true pose (and back), each point to the nearest pixel, and compared
    there: mean |moved - seen| / seen. The official splat has no z-buffer (a far point may cover a near one) and calls
    a pair without overlap perfect, 0; here the nearest point wins and such a pair is undefined and counted.

    Args:
        z_depth: (T, H, W), aligned to truth's unit.
        world_from_cam: (T, 4, 4), truth.
        intrinsics: (3, 3) or (T, 3, 3), px, corner origin.
        mask: (T, H, W) bool: pixels of the frame that is compared with; None for all.
        official: Add tae_official.

    Returns:
        tae (a share; published tables give percent), num_pairs, num_pairs_undefined; NaN with fewer than two frames or
        no overlap at all.
    """
    depth = np.asarray(z_depth, np.float64)
    pose = np.asarray(world_from_cam, np.float64)
    camera = np.broadcast_to(np.asarray(intrinsics, np.float64), (len(depth), 3, 3))
    allowed = np.ones(depth.shape, bool) if mask is None else np.asarray(mask, bool)
    pairs = [(a, a + step) for a in range(len(depth)) for step in (1, -1) if 0 <= a + step < len(depth)]
    errors: dict[bool, list[float]] = {True: [], False: []}
    for a, b in pairs:
        motion = invert_rigid(pose[b]) @ pose[a]
        for nearest in (True, False) if official else (True,):
            # The official script projects both ways with the first frame's camera.
            own = camera[a] if nearest else camera[min(a, b)]
            into = camera[b] if nearest else own
            moved = _splat(depth[a], motion, own, into, nearest)
            with np.errstate(invalid="ignore"):
                both = (moved > 0) & (depth[b] > 0) & allowed[b]
            error = np.abs(moved - depth[b])[both] / depth[b][both]
            errors[nearest].append(float(error.mean()) if error.size else float("nan"))
    known = [error for error in errors[True] if not np.isnan(error)]
    out = {
        "tae": float(np.mean(known)) if known else float("nan"),
        "num_pairs": float(len(pairs)),
        "num_pairs_undefined": float(len(pairs) - len(known)),
    }
    if official:
        out["tae_official"] = float(np.mean(np.nan_to_num(errors[False]))) if pairs else float("nan")
    return out


def _splat(depth: Float, motion: Float, own: Float, into: Float, nearest: bool) -> Float:
    """Depth of one frame in the next camera's pixels; 0 where nothing falls."""
    height, width = depth.shape
    rays = camera_rays(pixel_centres((width, height)), own)
    points = (rays * depth[..., None]).reshape(-1, 3) @ motion[:3, :3].T + motion[:3, 3]
    z = points[:, 2]
    out = np.zeros((height, width))
    with np.errstate(invalid="ignore", divide="ignore"):
        uv = np.rint((points @ into.T)[:, :2] / z[:, None] - 0.5)  # pixel i has its centre at i + 0.5
        inside = (uv >= 0).all(axis=1) & (uv[:, 0] < width) & (uv[:, 1] < height)
    if nearest:
        inside &= z > 0
    column, row = uv[inside].astype(np.int64).T
    if not nearest:
        out[row, column] = z[inside]
        return out
    order = np.argsort(-z[inside], kind="stable")
    out[row[order], column[order]] = z[inside][order]
    return out


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise UsageError(
            "No such protocol of video depth", where="protocol", expected=", ".join(PROTOCOLS), found=name
        )
    return PROTOCOLS[name]


def _of(table: Mapping[str, Any], dataset: str) -> Any:
    return table.get(dataset.lower(), table[_ANY])


def _clip_arrays(predicted: ArrayLike, target: ArrayLike) -> tuple[Any, Float]:
    ours, theirs = np.asarray(predicted), np.asarray(target, np.float64)
    if ours.ndim != 3 or theirs.ndim != 3 or len(ours) != len(theirs) or not ours.size:
        raise UsageError(
            "Depths do not fit each other",
            expected="predicted (T, h, w) and target (T, H, W)",
            found=(ours.shape, theirs.shape),
        )
    return (ours if ours.dtype in (np.float32, np.float64) else ours.astype(np.float64)), theirs


def _inverse(values: Any) -> Any:
    """1 / depth where depth is positive, 0 elsewhere (depth2disparity); no answer stays none."""
    positive = values > 0
    out = np.where(np.isnan(values), np.nan, 0.0).astype(values.dtype)
    out[positive] = 1.0 / values[positive]
    return out


def _to_one_size(ours: Any, theirs: Float, allowed: Mask, resize: str) -> tuple[Any, Float, Mask]:
    if ours.shape == theirs.shape:
        return ours, theirs, allowed
    import cv2

    def to(maps: Any, size: tuple[int, int], how: int) -> Any:
        return np.stack([cv2.resize(one, size, interpolation=how) for one in maps])

    if resize == "truth_nearest":
        size = (ours.shape[2], ours.shape[1])
        shrunk = to(allowed.astype(np.uint8), size, cv2.INTER_NEAREST).astype(bool)
        return ours, to(theirs, size, cv2.INTER_NEAREST), shrunk
    how = cv2.INTER_CUBIC if resize == "cubic" else cv2.INTER_LINEAR
    return to(ours, (theirs.shape[2], theirs.shape[1]), how), theirs, allowed


def _cameras(
    intrinsics: ArrayLike | None,
    predicted_intrinsics: ArrayLike | None,
    native: tuple[int, ...],
    shape: tuple[int, ...],
) -> tuple[Float, Float] | None:
    """Intrinsics of prediction and truth, (T, 3, 3), both in pixels of the compared size."""
    if intrinsics is None:
        return None
    count, height, width = shape
    truth = np.broadcast_to(np.asarray(intrinsics, np.float64), (count, 3, 3))
    if predicted_intrinsics is None:
        return truth, truth
    own = np.broadcast_to(np.asarray(predicted_intrinsics, np.float64), (count, 3, 3)).copy()
    own[:, 0] *= width / native[2]
    own[:, 1] *= height / native[1]
    return own, truth


def _pairs(ours: Any, theirs: Float, use: Mask) -> tuple[Any, Float]:
    use = use & np.isfinite(ours)
    return ours[use], theirs[use]


def _align(
    ours: Any, theirs: Float, known: Mask, rules: Protocol, cameras: tuple[Float, Float] | None
) -> tuple[Float, Fit]:
    """Depth fitted to truth, and the scale and shift of it (of disparity; of MoGe's the mean over frames)."""
    if rules.align.startswith("weighted"):
        return _align_frames(ours, theirs, known, rules.align)
    if rules.align == "points":
        return _align_points(ours, theirs, known, cameras)
    if rules.clip_before is not None:
        ours, theirs = np.clip(ours, *rules.clip_before), np.clip(theirs, *rules.clip_before)
    if rules.space == "disparity":
        ours = np.maximum(ours, 1e-3)
    pair = _pairs(ours, theirs, known)
    if not len(pair[0]):
        return np.full(theirs.shape, np.nan), (float("nan"), float("nan"))
    scale, shift = _FITS[rules.align](*pair)
    fitted = scale * ours.astype(np.float64) + shift
    return (1.0 / np.maximum(fitted, 1e-3) if rules.space == "disparity" else fitted), (scale, shift)


def _align_frames(ours: Any, theirs: Float, known: Mask, align: str) -> tuple[Float, Fit]:
    fitted, fits = np.full(theirs.shape, np.nan), []
    for t, (depth, truth, use) in enumerate(zip(ours.astype(np.float64), theirs, known, strict=True)):
        rows, columns, found = nearest_on_grid(use, _MOGE_GRID)
        d, g = depth[rows, columns][found], truth[rows, columns][found]
        d, g = d[np.isfinite(d)], g[np.isfinite(d)]
        if len(d):
            fit = fit_weighted_scale(d, g, 1 / g), 0.0
            if align == "weighted_l1_affine":
                scale, shift = fit_weighted_affine(d[:, None], g[:, None], 1 / g)
                fit = scale, float(shift[0])
            fitted[t] = fit[0] * depth + fit[1]
            fits.append(fit)
    means = np.mean(fits, axis=0) if fits else (np.nan, np.nan)
    return fitted, (float(means[0]), float(means[1]))


def _align_points(
    ours: Any, theirs: Float, known: Mask, cameras: tuple[Float, Float] | None
) -> tuple[Float, Fit]:
    depth = ours.astype(np.float64)
    use = known & np.isfinite(depth)
    if not use.any():
        return np.full(theirs.shape, np.nan), (float("nan"), float("nan"))
    if cameras is None:
        scale, shift = fit_points(depth[use][:, None], theirs[use][:, None])
    else:
        centres = pixel_centres((theirs.shape[2], theirs.shape[1]))
        rays = [np.stack([camera_rays(centres, k) for k in own]) for own in cameras]
        scale, shift = fit_points(
            (rays[0] * depth[..., None])[use], (rays[1] * np.where(use, theirs, 0)[..., None])[use]
        )
    return scale * depth + shift[-1], (scale, float(shift[-1]))


def _clip(values: Float, bounds: tuple[float | None, float | None]) -> Float:
    return values if bounds == (None, None) else np.clip(values, *bounds)


def _scores(fitted: Float, theirs: Float, known: Mask, average: str, eps: float) -> dict[str, float]:
    if average == "pixels":
        return _of_pixels(fitted[known], theirs[known], eps)
    frames = [_of_pixels(d[m], g[m], eps) for d, g, m in zip(fitted, theirs, known, strict=True) if m.any()]
    if not frames:
        return dict.fromkeys(_SCORES, float("nan"))
    return {name: float(np.mean([frame[name] for frame in frames])) for name in _SCORES}


def _of_pixels(fitted: Float, theirs: Float, eps: float = 0.0) -> dict[str, float]:
    """Errors over pixels; no answer is infinitely wrong."""
    if not theirs.size:
        return dict.fromkeys(_SCORES, float("nan"))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        off = np.where(np.isfinite(fitted), np.abs(fitted - theirs), np.inf)
        positive = np.maximum(fitted, _RATIO_FLOOR)
        ratio = np.maximum(positive / theirs, theirs / positive)
        logs = np.where(np.isfinite(fitted), np.log(positive) - np.log(theirs), np.inf)
        out = {
            "abs_rel": float((off / (theirs + eps)).mean()),
            "sq_rel": float((off**2 / theirs).mean()),
            "rmse": float(np.sqrt((off**2).mean())),
            "log_rmse": float(np.sqrt((logs**2).mean())),
        }
        return out | {f"delta{n}": float((ratio < 1.25**n).mean()) for n in (1, 2, 3)}


def _official(out: Mapping[str, float], rules: Protocol, unanswered: int) -> dict[str, float]:
    """What the script gives for a clip that it does not cope with; else the same."""
    abs_rel, delta1 = out["abs_rel"], out["delta1"]
    if not out["num_valid"]:
        # CUT3R and MonST3R call a clip without truth 0 (and weigh it 0); the others get NaN.
        nothing = 0.0 if rules.resize == "cubic" else float("nan")
        abs_rel = delta1 = nothing
    elif unanswered:
        # A NaN makes the fitted scale NaN, and nothing is near it; VDA's least squares raises.
        abs_rel = float("nan")
        delta1 = {"none": delta1, "disparity": float("nan")}.get(rules.align, 0.0)
    return {"abs_rel_official": abs_rel, "delta1_official": delta1}


def depth_scale(predicted: ArrayLike, target: ArrayLike, align: Alignment = "scale") -> float:
    """Return the factor that fits predicted depths to true ones.

    Args:
        predicted: Any shape; entries that are not finite in either are left out.
        target: Of the same shape.
        align: `scale` is CUT3R's L1 scale (`cut3r_scale`); `median` the ratio of medians; `none` is 1.

    Returns:
        The factor; NaN without a pair of finite depths.
    """
    d, g = _known_pairs(predicted, target, np.isfinite(np.asarray(target, np.float64)))
    d, g = d[np.isfinite(d)], g[np.isfinite(d)]
    if align == "none":
        return 1.0
    if not d.size:
        return float("nan")
    return lower_median(g) / lower_median(d) if align == "median" else fit_l1_scale(d, g)[0]


def abs_rel(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, align: Alignment = "scale") -> float:
    """Return mean |s d - g| / g over a clip, s as `depth_scale` finds it.

    Args:
        predicted: z depths of a clip, any shape, any unit.
        target: True z depths, same shape, positive wherever `mask`.
        mask: bool, same shape: where truth is known.
        align: As of `depth_scale`.

    Returns:
        The error; infinite where a prediction is not finite, so that nothing is gained by not answering; NaN if
        nothing is known.

    Raises:
        UsageError: Shapes differ, or a known depth is not positive.
    """
    d, g = _known_pairs(predicted, target, mask)
    return _of_pixels(depth_scale(d, g, align) * d, g)["abs_rel"]


def delta1(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, align: Alignment = "scale") -> float:
    """Return the share with max(s d / g, g / (s d)) < 1.25; arguments as of `abs_rel`."""
    d, g = _known_pairs(predicted, target, mask)
    return _of_pixels(depth_scale(d, g, align) * d, g)["delta1"]


def _known_pairs(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike) -> tuple[Float, Float]:
    d, g = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    known = np.asarray(mask, bool)
    if not d.shape == g.shape == known.shape:
        raise UsageError("Depths do not fit each other", found=(d.shape, g.shape, known.shape))
    if not (g[known] > 0).all():
        raise UsageError("A known depth is not positive", mend="mask points that lie behind their camera")
    return d[known], g[known]
