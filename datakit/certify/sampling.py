"""Which frame pairs and which pixels a certificate looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit.covisibility import CovisibilityParams, measure_covisibility
from datakit.errors import QualityError
from datakit.scene import Scene, View

from .raster import Float

#: Photos of a set that wide pairs start from, and how many of their neighbours are looked at, down to which place.
_SOURCES, _PARTNERS, _LAST_PARTNER = 10, 7, 40
#: Share of what both photos of a wide pair show that the other one shows too: less than `agreeing` warns below would
#: be a false alarm about occlusion, more leaves no parallax.
_LEAST_OVERLAP = 0.75
#: Pixels of each photo that overlaps are measured on, for choosing pairs only.
_OVERLAP_POINTS = 96


@dataclass(frozen=True)
class FramePair:
    """Two frames to compare. `baseline` counts frames; 0 for two views or for photos without an order."""

    view: str
    source: int
    view_target: str
    target: int
    baseline: int


def usable_frames(view: View) -> NDArray[np.int64]:
    """Return the frames of a view that have a known pose; none where the view has no depth."""
    if "z_depth" not in view.layers:
        return np.empty(0, np.int64)
    return np.flatnonzero(view.pose_is_known)


def choose_pairs(scene: Scene, num_temporal: int, num_cross: int, seed: int) -> list[FramePair]:
    """Choose frame pairs spread over views, time, baselines and directions.

    Args:
        scene: Open scene.
        num_temporal: At most so many pairs within views, over all views; at least two per view.
        num_cross: At most so many pairs across views.
        seed: Shifts where the pairs start.

    Returns:
        Pairs in a fixed order, sorted so that neighbours in the list share frames where possible.
    """
    rng = np.random.default_rng([seed, 1])
    names = [name for name, view in scene.views.items() if len(usable_frames(view)) >= 1]
    pairs: list[FramePair] = []
    if names:
        share = max(2, num_temporal // len(names))
        for name in names:
            view = scene.views[name]
            if scene.time_kind == "sequence":
                pairs += _temporal_pairs(name, usable_frames(view), share, rng)
            else:
                # Near pairs come from the poses alone: were all pairs chosen by agreeing geometry, wrong geometry
                # would choose the pairs that hide it.
                pairs += _near_pairs(name, view, usable_frames(view), max(1, share // 3))
                pairs += _wide_pairs(scene, name, share - share // 3, seed)
    pairs += _cross_pairs(scene, names, num_cross, rng)
    return sorted(set(pairs), key=lambda p: (p.view, p.view_target, p.source, p.target))


def _temporal_pairs(
    name: str, frames: NDArray[np.int64], count: int, rng: np.random.Generator
) -> list[FramePair]:
    """Split `count` over baselines 1, 2, 4, ... up to two thirds of the clip, forwards and backwards in turn."""
    if len(frames) < 2:
        return []
    baselines = [1 << k for k in range(16) if (1 << k) <= max(1, 2 * (len(frames) - 1) // 3)]
    pairs = []
    for k in range(count):
        step = baselines[k % len(baselines)]
        slots = len(frames) - step
        turn, turns = k // len(baselines), -(-count // len(baselines))
        start = int((turn + rng.uniform()) * slots / turns) % slots
        first, second = int(frames[start]), int(frames[start + step])
        if (k % len(baselines) + turn) % 2:
            first, second = second, first
        pairs.append(FramePair(name, first, name, second, abs(second - first)))
    return pairs


def _near_pairs(name: str, view: View, frames: NDArray[np.int64], count: int) -> list[FramePair]:
    """Pair photos of a set with the ones that look the same way from nearby, those with parallax first."""
    candidates = []
    for i in range(len(frames)):
        candidates += [(rank, i, j) for rank, j in enumerate(_neighbours(view, frames, i)[:2].tolist())]
    candidates.sort()
    stride = max(1, len(candidates) // max(count, 1))
    chosen = candidates[::stride][:count]
    return [FramePair(name, int(frames[i]), name, int(frames[j]), 0) for _, i, j in chosen]


def _neighbours(view: View, frames: NDArray[np.int64], i: int) -> NDArray[np.int64]:
    """Return the places in `frames` of those that look about the same way as frame i, the nearest first."""
    poses = view.world_from_cam[frames]
    cosine = np.clip(poses[:, :3, 2] @ poses[i, :3, 2], -1, 1)
    distance = np.linalg.norm(poses[:, :3, 3] - poses[i, :3, 3], axis=1)
    near = np.flatnonzero((np.arange(len(frames)) != i) & (cosine > np.cos(np.radians(45))))
    return near[np.argsort(distance[near], kind="stable")]


def _wide_pairs(scene: Scene, name: str, count: int, seed: int) -> list[FramePair]:
    """Pair photos of a set with the farthest ones that still show the same surfaces, by depth and poses.

    Neighbours are mostly too close for a wrong scale, K or ray length to show.
    """
    view, frames = scene.views[name], usable_frames(scene.views[name])
    sources = np.unique(np.linspace(0, len(frames) - 1, min(_SOURCES, len(frames))).round().astype(int))
    partners = {int(i): _neighbours(view, frames, int(i)) for i in sources}
    partners = {i: near[_ranks(len(near))] for i, near in partners.items()}
    places = sorted({*partners, *(int(j) for near in partners.values() for j in near)})
    try:
        found = measure_covisibility(
            scene,
            CovisibilityParams("depth", points=_OVERLAP_POINTS, seed=seed),
            [(name, int(frames[i])) for i in places],
        )
    except QualityError:  # nothing static, or no depth
        return []
    both = np.nan_to_num(np.minimum(found.overlap, found.overlap.T), nan=0.0)
    row = {int(t): k for k, t in enumerate(found.frame)}
    pairs = []
    for i, near in partners.items():
        # Ordered by distance: the last that overlaps enough has the most parallax.
        good = [j for j in near.tolist() if both[row[int(frames[i])], row[int(frames[j])]] >= _LEAST_OVERLAP]
        if good:
            pairs.append(FramePair(name, int(frames[i]), name, int(frames[good[-1]]), 0))
    return pairs[:: max(1, len(pairs) // max(count, 1))][:count]


def _ranks(count: int) -> NDArray[np.int64]:
    """Spread places of a list of `count` neighbours, closer together among the nearest; the last is among them."""
    last = min(count, _LAST_PARTNER)
    return (
        np.unique(np.geomspace(1, last, _PARTNERS).round().astype(np.int64)) - 1 if last else np.empty(0, int)
    )


def _cross_pairs(scene: Scene, names: list[str], count: int, rng: np.random.Generator) -> list[FramePair]:
    """Pair frames of different views that are at the same sample of the motion clock."""
    couples = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    pairs = []
    for k in range(count if couples else 0):
        a, b = couples[k % len(couples)]
        if (k // len(couples)) % 2:
            a, b = b, a
        first, second = usable_frames(scene.views[a]), usable_frames(scene.views[b])
        clock_a, clock_b = scene.views[a].motion_index[first], scene.views[b].motion_index[second]
        shared = np.intersect1d(clock_a[clock_a >= 0], clock_b[clock_b >= 0])
        if not shared.size:
            continue
        at = shared[int(rng.uniform() * len(shared))]
        pairs.append(FramePair(a, int(first[clock_a == at][0]), b, int(second[clock_b == at][0]), 0))
    return pairs


def draw_pixels(candidates: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most `count` pixels of an (H, W) mask without repetition; (K, 2) of (row, column)."""
    flat = np.flatnonzero(candidates)
    if len(flat) > count:
        flat = np.sort(rng.choice(flat, count, replace=False))
    return np.stack(np.unravel_index(flat, candidates.shape), axis=1).astype(np.int64)


def centres(pixels: NDArray[np.int64]) -> Float:
    """Return the (N, 2) continuous positions of the centres of (row, column) pixels."""
    return pixels[:, ::-1].astype(np.float64) + 0.5
