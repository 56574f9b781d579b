"""The protocols of `datakit evaluate`, by name: what each needs, which metric function it calls, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import UsageError

from .benchmarks import BenchmarkClip, TruthTracks
from .point_maps import align_scale_z, mean_shift_l1, moge_points, precision_recall, reconstruction
from .pose import megasam, pose_auc, trajectory
from .predictions import Prediction
from .runner import Protocol, Values
from .tracks2d import redetection, tapvid2d
from .tracks3d import Scaling, tapvid3d
from .video_depth import PROTOCOLS as DEPTH_PROTOCOLS
from .video_depth import protocol_settings, video_depth
from .worldtrack import Align, world_apd, worldtrack

Float = NDArray[np.float64]

_SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
_ALIGNMENTS: tuple[Align, ...] = get_args(Align)
#: What is measured where no protocol is asked for.
_DEFAULTS = {
    "tapvid3d": ("median", "per_trajectory"),
    "tapvid2d": ("tapvid2d",),
    "worldtrack": ("global", "sim3_closed", "d4rt"),
    "video-depth": ("cut3r_scale", "vda", "d4rt_s", "d4rt_ss"),
    "pose": ("sim3", "auc"),
    "points": ("mean_shift",),
}
#: Rows and columns cut from each side of ScanNet's depth by Video-Depth-Anything and DepthCrafter.
_SCANNET_CROP = (8, 11)
_CROPPED = ("depthcrafter", "vda")
#: Most truth pixels along the longer side of a frame that point maps are compared at.
_POINT_GRID = 512
#: Most points of a clip that clouds are compared with.
_CLOUD_POINTS = 200_000
#: Worlds are those of the first camera, on both sides.
_WORLD = "camera of frame 0"
_SEEN = "points seen in truth; for visibility all"


def choose_protocols(benchmark: str, names: Sequence[str] = (), dataset: str = "*") -> list[Protocol]:
    """Return the protocols of a benchmark.

    Args:
        benchmark: tapvid3d, tapvid2d, worldtrack, video-depth, pose or points.
        names: Which; none: the benchmark's own default; "all".
        dataset: Whose bounds of depth hold; any other name for none's own.

    Raises:
        UsageError: No such benchmark or protocol; the nearest name is told.
    """
    makers: Mapping[str, Callable[[], list[Protocol]]] = {
        "tapvid3d": _tapvid3d,
        "tapvid2d": _tapvid2d,
        "worldtrack": _worldtrack,
        "video-depth": partial(_video_depth, dataset),
        "pose": _pose,
        "points": _points,
    }
    if benchmark not in makers:
        raise UsageError("No such benchmark", expected=", ".join(makers), found=benchmark)
    known = {each.name: each for each in makers[benchmark]()}
    wanted = list(names or _DEFAULTS[benchmark])
    if "all" in wanted:
        wanted = list(known)
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise UsageError(
                f"No such protocol of {benchmark}",
                expected=", ".join(known),
                found=name,
                mend=f"did you mean '{near[0]}'?" if near else None,
            )
    return [known[name] for name in dict.fromkeys(wanted)]


# --- tracks


def _tapvid3d() -> list[Protocol]:
    columns = ("average_jaccard", "average_pts_within_thresh", "occlusion_accuracy")
    out = []
    for fixed in (False, True):
        for scaling in _SCALINGS:
            name = f"{scaling}-fixed" if fixed else scaling
            thresholds = "0.01 to 2.56 m" if fixed else "1 to 16 px at the true depth, shorter side 256 px"
            out.append(
                Protocol(
                    name,
                    "tapvid3d",
                    ("tracks_xyz", "visible"),
                    partial(_measure_tapvid3d, scaling=scaling, fixed=fixed),
                    partial(_lacks, tracks="xyz_cam", camera=True),
                    columns,
                    {
                        "alignment": scaling,
                        "thresholds": thresholds,
                        "resolution": "shorter side 256",
                        "mask": _SEEN,
                    },
                    averaging="sources",
                )
            )
    return out


def _measure_tapvid3d(clip: BenchmarkClip, prediction: Prediction, scaling: Scaling, fixed: bool) -> Values:
    tracks = _tracks(clip)
    return tapvid3d(
        _there(prediction.tracks_xyz),
        _there(prediction.visible),
        _there(tracks.xyz_cam),
        tracks.visible,
        _fx_fy_cx_cy(clip),
        clip.size,
        scaling=scaling,
        query_frame=_query_frames(clip),
        fixed_metric=fixed,
        official=True,
    )


def _tapvid2d() -> list[Protocol]:
    settings = {"alignment": "none", "resolution": "256 x 256", "thresholds": "1 to 16 px", "mask": _SEEN}
    base = ("tracks_uv", "visible")
    lacks = partial(_lacks, tracks="uv")
    return [
        Protocol(
            "tapvid2d",
            "tapvid2d",
            base,
            _measure_tapvid2d,
            lacks,
            ("average_jaccard", "average_pts_within_thresh", "occlusion_accuracy"),
            settings | {"scored": "frames after the query (first), all but the query's (strided)"},
        ),
        Protocol(
            "redetection",
            "tapvid2d",
            base,
            _measure_redetection,
            lacks,
            ("AJ_RD", "AJ_RD_official"),
            settings,
        ),
    ]


def _measure_tapvid2d(clip: BenchmarkClip, prediction: Prediction) -> Values:
    tracks = _tracks(clip)
    return tapvid2d(
        _there(prediction.tracks_uv),
        _there(prediction.visible),
        _there(tracks.uv),
        tracks.visible,
        _query_frames(clip),
        mode=tracks.query_mode,
        size=clip.size,
    )


def _measure_redetection(clip: BenchmarkClip, prediction: Prediction) -> Values:
    tracks = _tracks(clip)
    return redetection(
        _there(prediction.tracks_uv),
        _there(prediction.visible),
        _there(tracks.uv),
        tracks.visible,
        size=clip.size,
        official=True,
    )


def _worldtrack() -> list[Protocol]:
    lacks = partial(_lacks, tracks="xyz_cam", poses=True)
    out = [
        Protocol(
            align,
            "worldtrack",
            (),
            partial(_measure_worldtrack, align=align),
            lacks,
            ("apd", "epe", "apd_dynamic", "epe_dynamic"),
            {
                "alignment": align,
                "thresholds": "0.1, 0.3, 0.5, 1 m (<=)",
                "mask": "tracks seen in frame 0, occluded frames too",
                "world": _WORLD,
            },
            ("tracks_world", "tracks_xyz", "world_from_cam"),
            "sources",
        )
        for align in _ALIGNMENTS
    ]
    settings = {"alignment": "median", "thresholds": "1 to 16 px at the true depth", "world": _WORLD}
    out.append(
        Protocol(
            "d4rt",
            "worldtrack",
            (),
            _measure_world_apd,
            partial(_lacks, tracks="xyz_cam", poses=True, camera=True),
            ("apd3d", "l1"),
            settings
            | {"note": "the paper states neither alignment nor the use of intrinsics: not its exact numbers"},
            ("tracks_world", "tracks_xyz", "world_from_cam"),
            "sources",
        )
    )
    return out


def _measure_worldtrack(clip: BenchmarkClip, prediction: Prediction, align: Align) -> Values:
    tracks = _tracks(clip)
    return worldtrack(
        _predicted_world(prediction), _true_world(clip), tracks.visible, align=align, official=True
    )


def _measure_world_apd(clip: BenchmarkClip, prediction: Prediction) -> Values:
    tracks = _tracks(clip)
    return world_apd(
        _predicted_world(prediction),
        _true_world(clip),
        tracks.visible,
        _there(tracks.xyz_cam)[..., 2],
        _fx_fy_cx_cy(clip),
        clip.size,
    )


def _predicted_world(prediction: Prediction) -> Float:
    """(N, T, 3) predicted tracks in one frame: as given, or carried there by the predicted cameras."""
    if prediction.tracks_world is not None:
        return prediction.tracks_world
    if prediction.tracks_xyz is None or prediction.world_from_cam is None:
        raise UsageError(
            "A prediction has no tracks in one world",
            expected="tracks_world, or tracks_xyz and world_from_cam",
        )
    return g.transform_points(_from_first(prediction.world_from_cam), prediction.tracks_xyz)


def _true_world(clip: BenchmarkClip) -> Float:
    return g.transform_points(_from_first(_there(clip.world_from_cam)), _there(_tracks(clip).xyz_cam))


def _from_first(world_from_cam: Float) -> Float:
    """(T, 4, 4) poses in the camera of the first frame."""
    return np.asarray(g.invert_rigid(world_from_cam[0]) @ world_from_cam)


# --- depth


def _video_depth(dataset: str) -> list[Protocol]:
    return [
        Protocol(
            name,
            "video-depth",
            ("z_depth",),
            partial(_measure_depth, protocol=name, dataset=dataset),
            partial(_lacks, depth=True),
            ("abs_rel", "delta1"),
            _depth_settings(name, dataset),
            ("intrinsics",),
            averaging=DEPTH_PROTOCOLS[name].clips,
        )
        for name in DEPTH_PROTOCOLS
    ]


def _depth_settings(name: str, dataset: str) -> dict[str, Any]:
    settings = protocol_settings(name, dataset)
    if dataset == "scannet" and name in _CROPPED:
        settings["crop"] = "8 rows and 11 columns a side"
    settings["alignment"], settings["within_clip"] = settings.pop("align"), settings.pop("average")
    left_out = ("protocol", "clips")
    return {key: value for key, value in settings.items() if key not in left_out and value not in ("", None)}


def _measure_depth(clip: BenchmarkClip, prediction: Prediction, protocol: str, dataset: str) -> Values:
    truth = clip.depth_stack()
    if dataset == "scannet" and protocol in _CROPPED:
        rows, columns = _SCANNET_CROP
        inner = np.full_like(truth, np.nan)
        inner[:, rows:-rows, columns:-columns] = truth[:, rows:-rows, columns:-columns]
        truth = inner
    return video_depth(
        _there(prediction.z_depth),
        truth,
        protocol,
        dataset=dataset,
        intrinsics=clip.depth_intrinsics,
        predicted_intrinsics=prediction.intrinsics,
        official=True,
    )


# --- cameras


def _pose() -> list[Protocol]:
    lacks = partial(_lacks, poses=True)
    needs = ("world_from_cam",)
    columns = ("ate", "rpe_trans", "rpe_rot")
    return [
        Protocol(
            "sim3",
            "pose",
            needs,
            _measure_trajectory,
            lacks,
            columns,
            {"alignment": "Umeyama Sim(3), by evo", "mask": "frames with a true pose"},
        ),
        Protocol(
            "megasam",
            "pose",
            needs,
            _measure_megasam,
            lacks,
            columns,
            {"alignment": "Umeyama Sim(3), by evo", "unit": "truth's first to last position"},
        ),
        Protocol(
            "auc",
            "pose",
            needs,
            _measure_auc,
            lacks,
            ("auc_30", "auc_15", "auc_5", "auc_3"),
            {"alignment": "none", "pairs": "all i < j", "translation": "angle, folded to 90 degrees"},
        ),
        Protocol(
            "sim3-rows",
            "pose",
            needs,
            _measure_official_rows,
            _lacks_rows,
            columns,
            {
                "alignment": "Umeyama Sim(3), by evo",
                "truth": "rows of groundtruth.txt as MonST3R slices them (Bonn)",
            },
        ),
    ]


def _known_poses(clip: BenchmarkClip, prediction: Prediction) -> tuple[Float, Float]:
    """Both sides at the frames whose pose is known in truth."""
    return _where_known(_there(prediction.world_from_cam), _there(clip.world_from_cam))


def _where_known(predicted: Float, target: Float) -> tuple[Float, Float]:
    known = np.asarray(np.isfinite(target).all(axis=(1, 2)))
    return predicted[known], target[known]


def _measure_trajectory(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return trajectory(*_known_poses(clip, prediction), official=True)


def _measure_megasam(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return megasam(*_known_poses(clip, prediction))


def _measure_auc(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return pose_auc(*_known_poses(clip, prediction), official=True)


def _measure_official_rows(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return trajectory(*_where_known(_there(prediction.world_from_cam), _there(clip.official_world_from_cam)))


def _lacks_rows(clip: BenchmarkClip) -> str | None:
    return None if clip.official_world_from_cam is not None else "no other poses are official"


# --- points


def _points() -> list[Protocol]:
    lacks = partial(_lacks, depth=True, poses=True, depth_camera=True)
    used = ("points_world", "z_depth", "intrinsics", "world_from_cam")
    grid = f"at most {_POINT_GRID} pixels along the longer side"
    clouds = {"resolution": f"at most {_CLOUD_POINTS} points a clip", "world": _WORLD, "crop": "none"}
    return [
        Protocol(
            "mean_shift",
            "points",
            (),
            _measure_mean_shift,
            lacks,
            ("l1", "l1_sum"),
            {"alignment": "means subtracted", "resolution": grid, "world": _WORLD},
            used,
        ),
        Protocol(
            "cut3r",
            "points",
            (),
            _measure_reconstruction,
            lacks,
            ("accuracy", "completeness", "normal_consistency"),
            clouds | {"alignment": "scale and z-shift by medians, then ICP of 0.1 m"},
            used,
        ),
        Protocol(
            "da3",
            "points",
            (),
            _measure_precision_recall,
            lacks,
            ("fscore", "precision", "recall", "overall"),
            clouds
            | {"alignment": "scale and z-shift by medians (theirs is by poses)", "threshold": "0.05 m"},
            used,
        ),
        Protocol(
            "moge",
            "points",
            ("z_depth", "intrinsics"),
            _measure_moge_points,
            partial(_lacks, depth=True, depth_camera=True),
            ("rel_point", "delta1_point"),
            {"alignment": "L1 scale of each frame, weights 1/|g|, 64 x 64 grid", "resolution": grid},
        ),
    ]


def _measure_mean_shift(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return mean_shift_l1(*_point_pairs(clip, prediction, _grid_step(clip)))


def _measure_reconstruction(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return reconstruction(*_clouds(clip, prediction))


def _measure_precision_recall(clip: BenchmarkClip, prediction: Prediction) -> Values:
    return precision_recall(*_clouds(clip, prediction), official=True)


def _measure_moge_points(clip: BenchmarkClip, prediction: Prediction) -> Values:
    """Mean over frames of what is defined there."""
    step = _grid_step(clip)
    uv, rays, truth = _true_rays(clip, step)
    predicted_rays, depth = _predicted_rays(prediction, uv), _nearest(_there(prediction.z_depth), uv)
    target, predicted = rays * truth[..., None], predicted_rays * depth[..., None]
    frames = [
        moge_points(ours, theirs, np.isfinite(theirs).all(axis=-1))
        for ours, theirs in zip(predicted, target, strict=True)
    ]
    counted = [each for each in frames if each["num_points"]]
    return {
        name: float(np.mean([each[name] for each in counted])) if counted else float("nan")
        for name in ("rel_point", "delta1_point")
    } | {"num_points": sum(each["num_points"] for each in counted)}


def _clouds(clip: BenchmarkClip, prediction: Prediction) -> tuple[Float, Float]:
    """(N, 3) predicted and (M, 3) true points of a clip, the first brought to the second's scale."""
    num_pixels = clip.num_frames * int(np.prod(clip.depth_shape()))
    step = max(1, int(np.ceil(np.sqrt(num_pixels / _CLOUD_POINTS))))
    predicted, target, mask = _point_pairs(clip, prediction, step)
    # Only where truth is known, as the official masks have it.
    return align_scale_z(predicted, target, mask)[mask], target[mask]


def _grid_step(clip: BenchmarkClip) -> int:
    return -(-max(clip.depth_shape()) // _POINT_GRID)


def _point_pairs(
    clip: BenchmarkClip, prediction: Prediction, step: int
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """(T, h, w, 3) predicted and true points in one world at every so many pixels of truth, and where truth is."""
    uv, rays, truth = _true_rays(clip, step)
    target = _lift(rays, truth, _from_first(_there(clip.world_from_cam)))
    return _predicted_points(prediction, uv), target, np.asarray(np.isfinite(target).all(axis=-1))


def _true_rays(clip: BenchmarkClip, step: int) -> tuple[Float, Float, NDArray[np.float32]]:
    """Places (h, w, 2) in [0, 1], rays (T, h, w, 3) and depth (T, h, w) at every so many pixels of truth.

    Sampled, not averaged: the depth of a pixel belongs to its own ray.
    """
    truth = clip.depth_stack()[:, ::step, ::step]
    height, width = clip.depth_shape()
    uv = g.pixel_centres((width, height))[::step, ::step]
    rays = np.stack([g.camera_rays(uv, k) for k in _there(clip.depth_intrinsics)])
    return uv / (width, height), rays, truth


def _predicted_rays(prediction: Prediction, uv: Float) -> Float:
    height, width = _there(prediction.z_depth).shape[1:]
    return np.stack([g.camera_rays(uv * (width, height), k) for k in _there(prediction.intrinsics)])


def _predicted_points(prediction: Prediction, uv: Float) -> Float:
    """(T, h, w, 3) predicted points at places (h, w, 2) in [0, 1], in one frame; of the nearest pixel."""
    if prediction.points_world is not None:
        return np.asarray(_nearest(prediction.points_world, uv), np.float64)
    if prediction.z_depth is None or prediction.intrinsics is None or prediction.world_from_cam is None:
        raise UsageError(
            "A prediction has no points in one world",
            expected="points_world, or z_depth, intrinsics and world_from_cam",
        )
    rays = _predicted_rays(prediction, uv)
    return _lift(rays, _nearest(prediction.z_depth, uv), _from_first(prediction.world_from_cam))


def _nearest(maps: NDArray[Any], uv: Float) -> NDArray[Any]:
    height, width = maps.shape[1:3]
    column = np.clip(np.floor(uv[..., 0] * width).astype(np.int64), 0, width - 1)
    row = np.clip(np.floor(uv[..., 1] * height).astype(np.int64), 0, height - 1)
    return np.asarray(maps[:, row, column])


def _lift(rays: Float, z_depth: NDArray[Any], pose: Float) -> Float:
    points = rays * np.asarray(z_depth, np.float64)[..., None]
    return g.transform_points(pose[:, None, None], points)


# --- what a clip must have


def _lacks(
    clip: BenchmarkClip,
    tracks: str | None = None,
    camera: bool = False,
    poses: bool = False,
    depth: bool = False,
    depth_camera: bool = False,
) -> str | None:
    """Say what a clip's truth lacks of what a protocol needs; None if nothing."""
    if tracks is not None and (clip.tracks is None or getattr(clip.tracks, tracks) is None):
        return "no tracks"
    if tracks is not None and not len(_tracks(clip).query_xyt):
        return "no track is ever seen"
    if camera and clip.intrinsics is None:
        return "no intrinsics"
    if depth and clip.z_depth is None:
        return "no depth"
    if depth_camera and clip.depth_intrinsics is None:
        return "no intrinsics of the depth"
    if poses and clip.world_from_cam is None:
        return "no poses" + (f" ({clip.notes[0]})" if clip.notes else "")
    return None


def _there(value: NDArray[Any] | None) -> NDArray[Any]:
    """Return what `Protocol.needs` and `_lacks` have seen to be there."""
    assert value is not None
    return value


def _tracks(clip: BenchmarkClip) -> TruthTracks:
    assert clip.tracks is not None  # `_lacks` has seen to it
    return clip.tracks


def _query_frames(clip: BenchmarkClip) -> NDArray[np.int64]:
    return np.round(_tracks(clip).query_xyt[:, 2]).astype(np.int64)


def _fx_fy_cx_cy(clip: BenchmarkClip) -> Float:
    """(4,) of the first frame: benchmarks of tracks have one camera a clip."""
    k = _there(clip.intrinsics)[0]
    return np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
