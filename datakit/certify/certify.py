"""Certify a scene: run every check on frames and frame pairs drawn from its file, and judge the numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datakit.scene import Scene, open_scene

from .cameras import check_intrinsics, check_poses
from .certificate import CERTIFY_VERSION, Certificate, CheckResult, worst_verdict
from .codes import DepthCodes
from .draw import draw_pair
from .edges import EdgeAlignment
from .flow import FlowAgreement
from .frames import FrameStore
from .judge import Context
from .objects import ObjectCoords
from .photometric import Photometric
from .reprojection import DepthReprojection
from .rigid import RigidResidual
from .sampling import choose_pairs, usable_frames
from .surfaces import DepthValid, Normals
from .thresholds import DEPTH_KINDS, Thresholds, load_thresholds
from .tracks import TrackDepth

#: Checks that gather numbers from frames (`see_frame`) or frame pairs (`see_pair`) and judge them in `finish`.
GATHERING: tuple[type[Any], ...] = (
    DepthValid,
    DepthCodes,
    DepthReprojection,
    TrackDepth,
    RigidResidual,
    ObjectCoords,
    FlowAgreement,
    Photometric,
    EdgeAlignment,
    Normals,
)
#: Checks that need no pixels.
DIRECT: tuple[Callable[[Context], CheckResult], ...] = (check_poses, check_intrinsics)


def certify_scene(
    scene: str | Path | Scene, thresholds: Thresholds | None = None, seed: int = 0
) -> Certificate:
    """Measure the geometric quality of a scene from its data alone.

    A pure function of the file's bytes, the thresholds and the seed. Memory is that of a few frames.

    Args:
        scene: Scene file, or an open scene.
        thresholds: Limits; None for the ones that come with datakit.
        seed: Of the choice of frames and pixels.

    Returns:
        The certificate.

    Raises:
        FormatError: The scene file or the thresholds are damaged.
    """
    if not isinstance(scene, Scene):
        with open_scene(scene) as opened:
            return certify_scene(opened, thresholds, seed)
    limits = load_thresholds() if thresholds is None else thresholds
    kind = _depth_kind(scene)
    context = Context(FrameStore(scene, limits.setting("smoothing_px", kind)), limits, kind, seed)
    checks = [make() for make in GATHERING]
    _gather(context, checks)
    results = tuple(check.finish(context) for check in checks) + tuple(check(context) for check in DIRECT)
    return Certificate(
        scene_id=scene.id,
        dataset=scene.dataset,
        scene_sha256=_sha256(scene.path),
        thresholds_sha256=limits.sha256,
        certify_version=CERTIFY_VERSION,
        seed=seed,
        verdict=worst_verdict(result.verdict for result in results),
        checks=results,
    )


def _gather(context: Context, checks: list[Any]) -> None:
    by_pair = [check for check in checks if hasattr(check, "see_pair")]
    by_frame = [check for check in checks if hasattr(check, "see_frame")]
    count_temporal, count_cross = (int(context.setting(f"pairs_{kind}")) for kind in ("temporal", "cross"))
    for number, pair in enumerate(
        choose_pairs(context.frames.scene, count_temporal, count_cross, context.seed)
    ):
        sample = draw_pair(context, pair, number)
        for check in by_pair:
            check.see_pair(context, sample)
    for number, (view, index) in enumerate(_choose_frames(context)):
        frame = context.frames.get(view, index)
        for check in by_frame:
            check.see_frame(context, frame, number)


def _choose_frames(context: Context) -> list[tuple[str, int]]:
    """Choose frames with known poses, evenly over each view; at least two per view."""
    views = context.frames.scene.views
    each = max(2, int(context.setting("frames")) // max(1, len(views)))
    chosen: list[tuple[str, int]] = []
    for name, view in views.items():
        frames = usable_frames(view)
        if len(frames):
            at = np.unique(np.linspace(0, len(frames) - 1, each).round().astype(int))
            chosen += [(name, int(frames[k])) for k in at]
    return chosen


def _depth_kind(scene: Scene) -> str:
    """Return the least exact kind of depth among the views; "sensor" where no view has depth."""
    kinds = {view.depth_kind for view in scene.views.values() if view.depth_kind is not None}
    return max(kinds, key=lambda kind: _BY_EXACTNESS.index(kind)) if kinds else "sensor"


_BY_EXACTNESS: list[str] = [
    kind for kind in ("rendered", "mvs", "sensor", "lidar", "pseudo") if kind in DEPTH_KINDS
]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
