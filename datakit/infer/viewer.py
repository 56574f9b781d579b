"""One HTML file to look at a scene's points, tracks and cameras: orbit, zoom, scrub; it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.motion import MotionKind, Visibility
from datakit.scene import Scene, View, open_scene
from datakit.show.report import embed_json
from datakit.show.sampling import sample_tracks

from .cloud import CloudOptions, FramePoints, frame_points, pick_view
from .files import atomic_file

#: Code of an unknown place; all others are steps of the box.
UNKNOWN = 65535
_STEPS = 65534
#: Points that are read for each one shown, so that still and moving ones can be drawn apart.
_SPARE = 4
#: Share of the points that moving things get where they would have less: they show at one frame only.
_MOVING_SHARE = 0.4
_PICTURE_SIDE, _JPEG_QUALITY = 288, 72

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ViewerOptions:
    """How much the page holds. A point takes 16 bytes, a picture about 10 kB, a track 15 bytes a frame.

    Attributes:
        points: Largest number of points.
        frames: Largest number of frames, evenly chosen.
        tracks: Largest number of tracks.
        drop: As of `CloudOptions`.
        seed: Of all choices.
    """

    points: int = 150_000
    frames: int = 96
    tracks: int = 300
    drop: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points < 1 or self.frames < 1 or self.tracks < 0:
            raise UsageError("The viewer needs room for something", found=self)


def write_viewer(
    scene: str | Path | Scene,
    out: str | Path,
    options: ViewerOptions | None = None,
    *,
    view: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
    notes: Sequence[tuple[str, bool]] = (),
) -> Path:
    """Write the page; the same scene and options give the same bytes.

    Args:
        scene: Scene file, or an open scene. Any with depth and poses will do.
        out: HTML file; it appears when it is whole.
        options: How much; None for the defaults.
        view: View to show; None for the first with depth.
        facts: Further lines of (name, text) under the picture.
        notes: Further remarks, (text, whether it is bad news).

    Raises:
        UsageError: No such view.
        QualityError: There is no depth.
    """
    if not isinstance(scene, Scene):
        with open_scene(scene) as opened:
            return write_viewer(opened, out, options, view=view, facts=facts, notes=notes)
    payload = build_payload(scene, pick_view(scene, view), options or ViewerOptions(), facts, notes)
    with atomic_file(out) as file:
        file.write(render_page(payload, f"{scene.dataset} / {scene.id}").encode("utf-8"))
    return Path(out)


def render_page(payload: Mapping[str, Any], title: str) -> str:
    """Put payload, style and script into the page, whose policy lets the browser run and load nothing else."""
    report = resources.files("datakit.show").joinpath("page", "report.css").read_text(encoding="utf-8")
    style, script = report + _page_file("viewer.css"), _page_file("viewer.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "payload": embed_json(payload),
    }
    # One pass, so that no text of a part is taken for a place-holder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _page_file("viewer.html"))


def _page_file(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def build_payload(
    scene: Scene,
    view: View,
    options: ViewerOptions,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[tuple[str, bool]],
) -> dict[str, Any]:
    """Collect what the page shows, as plain JSON types."""
    shown = np.unique(
        np.linspace(0, view.num_frames - 1, min(view.num_frames, options.frames)).round().astype(np.int64)
    )
    rng = np.random.default_rng([options.seed, 1])
    points, slots = _choose_points(scene, view, shown, options, rng)
    tracks = _choose_tracks(scene, view, shown, options.tracks, rng)
    box = _box(points.xyz)
    cloud_codes = quantise(points.xyz, *box)
    inside = (cloud_codes != UNKNOWN).all(axis=1)
    return {
        "format": "datakit-viewer",
        "version": 1,
        "size": list(view.size),
        "times": view.times[shown].tolist(),
        "numbers": [view.frame_names[t] for t in shown],
        "poses": [_pose(view, int(t)) for t in shown],
        "intrinsics": [_focal(view.intrinsics[t]) for t in shown],
        "path": [_centre(view, t) for t in _at_most(np.arange(view.num_frames), 1000).tolist()],
        "world_up": None if scene.world_up is None else scene.world_up.tolist(),
        "box": {"low": box[0].tolist(), "step": box[1].tolist()},
        "cloud": {
            "count": int(inside.sum()),
            "left_out": int((~inside).sum()),
            "xyz": _text(cloud_codes[inside].astype("<u2")),
            "rgb": _text(points.rgb[inside]),
            "slot": _text(slots[inside].astype("<u2")),
            "moving": _text(points.is_moving[inside].astype(np.uint8)),
            "spacing": _spacing_fields(points.spacing[inside]),
        },
        "tracks": _track_fields(view, tracks, box),
        "pictures": [_picture(view, int(t)) for t in shown],
        "facts": [*_facts(scene, view), *(list(fact) for fact in facts)],
        "notes": [list(note) for note in notes],
    }


def quantise(xyz: Float, low: Float, step: Float) -> NDArray[np.int64]:
    """Code places by whole steps of a box.

    Args:
        xyz: (..., 3), NaN unknown.
        low: (3,) corner of the box.
        step: (3,) size of a step.

    Returns:
        (..., 3) codes 0..65534; 65535 in all three where a place is unknown or outside the box.
    """
    codes = np.round((xyz - low) / step)
    with np.errstate(invalid="ignore"):
        good = np.asarray(((codes >= 0) & (codes <= _STEPS)).all(axis=-1))
    return np.where(good[..., None], np.nan_to_num(codes), UNKNOWN).astype(np.int64)


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _at_most(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return values[np.unique(np.linspace(0, len(values) - 1, min(len(values), count)).round().astype(int))]


def _box(xyz: Float) -> tuple[Float, Float]:
    """Return corner and step of a box that holds the bulk of the points and three times as much around it.

    A few points at the horizon must not take the precision of all others.
    """
    if not len(xyz):
        return np.full(3, -1.0), np.full(3, 2.0 / _STEPS)
    low, high = np.quantile(xyz, [0.01, 0.99], axis=0)
    reach = max(float((high - low).max()), 1e-9 * (1 + float(np.abs(xyz).max())))
    low, high = np.maximum(xyz.min(axis=0), low - 3 * reach), np.minimum(xyz.max(axis=0), high + 3 * reach)
    return low, np.maximum(high - low, 1e-6 * reach) / _STEPS


# --- points ----------------------------------------------------------------------------------------------------------


def _choose_points(
    scene: Scene, view: View, shown: NDArray[np.int64], options: ViewerOptions, rng: np.random.Generator
) -> tuple[FramePoints, NDArray[np.int64]]:
    """Draw points, more of the moving ones than their share; return them with their slots."""
    spare = CloudOptions(most=_SPARE * options.points, drop=options.drop, seed=options.seed)
    parts = list(frame_points(scene, view, spare, shown))
    slot_of = {int(t): slot for slot, t in enumerate(shown)}
    slots = np.concatenate([np.full(len(p.xyz), slot_of[p.t], np.int64) for p in parts] or [_none(np.int64)])
    every = FramePoints(
        -1,
        np.concatenate([p.xyz for p in parts] or [np.zeros((0, 3))]),
        np.concatenate([p.rgb for p in parts] or [np.zeros((0, 3), np.uint8)]),
        np.concatenate([p.confidence for p in parts] or [_none(np.float32)]),
        np.concatenate([p.is_moving for p in parts] or [_none(np.bool_)]),
        np.concatenate([p.spacing for p in parts] or [_none(np.float32)]),
    )
    moving, still = np.flatnonzero(every.is_moving), np.flatnonzero(~every.is_moving)
    if len(slots) <= options.points:
        kept = np.arange(len(slots))
    else:
        num_moving = min(len(moving), max(int(options.points * _MOVING_SHARE), options.points - len(still)))
        picks = [
            rng.choice(moving, num_moving, replace=False),
            rng.choice(still, options.points - num_moving, replace=False),
        ]
        kept = np.sort(np.concatenate(picks))
    taken = FramePoints(
        -1,
        every.xyz[kept],
        every.rgb[kept],
        every.confidence[kept],
        every.is_moving[kept],
        every.spacing[kept],
    )
    return taken, slots[kept]


def _spacing_fields(spacing: NDArray[np.float32]) -> dict[str, Any]:
    """Code widths on a logarithmic scale of 256 steps."""
    low, high = (float(v) for v in np.quantile(spacing, [0.01, 0.99])) if len(spacing) else (1.0, 1.0)
    ratio = max(high / low, 1 + 1e-6)
    codes = np.round(np.log(np.maximum(spacing, 1e-30) / low) / np.log(ratio) * 255).clip(0, 255)
    return {"low": low, "ratio": ratio, "codes": _text(codes.astype(np.uint8))}


def _none(dtype: type[np.generic]) -> NDArray[Any]:
    return np.zeros(0, dtype)


# --- tracks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tracks:
    """N tracks at the F shown frames: places (N, F, 3) world, seen (N, F), uv_px (N, F, 2); NaN unknown."""

    places: Float
    seen: NDArray[np.bool_]
    uv_px: Float


def _choose_tracks(
    scene: Scene, view: View, shown: NDArray[np.int64], most: int, rng: np.random.Generator
) -> _Tracks:
    """Take the scene's explicit trajectories, or where it has none follow pixels by its motion."""
    if most == 0:
        return _Tracks(
            np.zeros((0, len(shown), 3)), np.zeros((0, len(shown)), bool), np.zeros((0, len(shown), 2))
        )
    if scene.motion.points_world is None:
        followed = sample_tracks(scene, view, shown, most, rng)
        return _Tracks(followed.points_world, followed.state == Visibility.VISIBLE, followed.uv_px)
    chosen, places = _explicit_tracks(scene, view, shown, most, rng)
    states = scene.motion.point_state.get(view.name)
    seen = np.asarray(np.isfinite(places).all(axis=2))
    if states is not None:
        seen &= states[chosen][:, shown] == Visibility.VISIBLE
    uv = np.full((*places.shape[:2], 2), np.nan)
    for slot, t in enumerate(shown):
        if view.pose_is_known[t] and len(chosen):
            points_cam = g.transform_points(g.invert_rigid(view.world_from_cam[t]), places[:, slot])
            uv[:, slot], _ = g.project_distorted(
                points_cam, view.intrinsics[t], view.record["camera_model"], view.record["distortion"]
            )
    return _Tracks(places, seen, uv)


def _explicit_tracks(
    scene: Scene, view: View, shown: NDArray[np.int64], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Float]:
    """Pick trajectories known in two shown frames or more, half of them moving where there are so many.

    Returns:
        (N,) rows of the motion record, and (N, F, 3) world places at the shown frames.
    """
    motion, samples = scene.motion, view.motion_index[shown]
    assert motion.points_world is not None
    points = np.full((len(motion.points_world), len(shown), 3), np.nan)
    points[:, samples >= 0] = motion.points_world[:, samples[samples >= 0]]
    good = np.flatnonzero(np.isfinite(points).all(axis=2).sum(axis=1) >= min(2, len(shown)))
    still = motion.instance_ids[motion.instance_motion == MotionKind.STATIC]
    labels = motion.point_instance
    is_moving = np.ones(len(good), bool) if labels is None else ~np.isin(labels[good], still)
    moving, rest = good[is_moving], good[~is_moving]
    num_moving = min(len(moving), max(most // 2, most - len(rest)))
    picks = [rng.choice(moving, num_moving, replace=False)]
    picks.append(rng.choice(rest, min(len(rest), most - num_moving), replace=False))
    chosen = np.sort(np.concatenate(picks))
    return chosen, points[chosen]


def _track_fields(view: View, tracks: _Tracks, box: tuple[Float, Float]) -> dict[str, Any]:
    share = tracks.uv_px / np.array(view.size)
    # Colour goes with the place where a track is first known, so that neighbours look alike.
    first = np.isfinite(share).all(axis=2).argmax(axis=1)
    start = np.nan_to_num(share[np.arange(len(share)), first])
    return {
        "count": len(share),
        "xyz": _text(quantise(tracks.places, *box).astype("<u2")),
        "seen": _text(tracks.seen.astype(np.uint8)),
        "uv": _text(quantise(share, np.zeros(2), np.full(2, 1 / _STEPS)).astype("<u2")),
        "hue": (np.clip(0.75 * start[:, 0] + 0.25 * start[:, 1], 0, 1) * 320).round(1).tolist(),
    }


# --- cameras and facts -----------------------------------------------------------------------------------------------


def _pose(view: View, t: int) -> list[float] | None:
    return view.world_from_cam[t, :3].ravel().tolist() if view.pose_is_known[t] else None


def _centre(view: View, t: int) -> list[float] | None:
    return view.world_from_cam[t, :3, 3].tolist() if view.pose_is_known[t] else None


def _focal(intrinsics: Float) -> list[float]:
    return [float(intrinsics[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2))]


def _picture(view: View, t: int) -> str | None:
    if "rgb" not in view.layers:
        return None
    rgb = view.rgb(t)
    scale = min(1.0, _PICTURE_SIDE / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not ok:
        raise ValueError(f"OpenCV cannot write a JPEG of shape {small.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode("ascii")


def _facts(scene: Scene, view: View) -> list[list[str]]:
    width, height = view.size
    length = view.times[-1] - view.times[0]
    focal = np.median(view.intrinsics[:, 0, 0])
    field = 2 * np.degrees(np.arctan(width / (2 * focal)))
    kind = view.depth_kind or "none"
    return [
        ["view", f"{view.name}, {width} x {height}"],
        ["frames", f"{view.num_frames} in {length:.2f} s"],
        ["depth", f"{kind}, {' x '.join(map(str, view.depth_size))}"],
        ["unit", scene.scale],
        ["field of view", f"{field:.1f}° across"],
        ["licence", scene.licence],
    ]
