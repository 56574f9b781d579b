"""Targets as the stream hands them out, from packed shards through workers, crops, strides and resizing, against the
analytic worlds that made the clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from datakit import Visibility
from datakit.geometry import homography_points, invert_rigid, project_points, transform_points
from datakit.shards import PackParams, pack
from datakit.stream import stream
from datakit.worlds import World, random_world

from .conftest import write_world

pytestmark = pytest.mark.slow

SIZE, NET, FRAMES = (192, 144), 96, 14
MOTIONS = {"still": "static", "moving": "rigid"}


@dataclass
class Found:
    """All queries of some batches beside their truth; one row a query.

    Attributes:
        mask: Name of a target -> whether it was said to be known.
        got: Name -> what was delivered.
        want: Name -> truth; "inside" and "visible" are those of the cropped frame.
        flat: The surface is a plane around the query: interpolation between depth pixels is exact.
        clear: Neither there nor where it is looked for is an edge near.
        dataset: Name.
    """

    mask: dict[str, np.ndarray]
    got: dict[str, np.ndarray]
    want: dict[str, np.ndarray]
    flat: np.ndarray
    clear: np.ndarray
    dataset: np.ndarray


class Truth:
    """A world, and where its frames are flat and where they have edges."""

    def __init__(self, world: World) -> None:
        self.world = world
        frames = [world.render(t) for t in range(FRAMES)]
        self.intrinsics = world.views["camera"].intrinsics
        self.world_from_cam = world.views["camera"].world_from_cam
        self.instances = np.stack([frame.instances for frame in frames])
        self.normals = np.stack([frame.normals_world for frame in frames])
        inverse = 1 / np.stack([frame.z_depth for frame in frames]).astype(float)
        bend = np.zeros(inverse.shape)
        border = np.ones(SIZE[::-1], bool)
        border[2:-2, 2:-2] = False
        for axis in (1, 2):
            second = np.abs(np.diff(inverse, 2, axis=axis)) / np.take(
                inverse, range(1, inverse.shape[axis] - 1), axis
            )
            middle = [slice(None)] * 3
            middle[axis] = slice(1, -1)
            bend[tuple(middle)] = np.maximum(bend[tuple(middle)], second)
        near = (1, 5, 5)
        other = maximum_filter(self.instances, near) != minimum_filter(self.instances, near)
        self.edge = other | (maximum_filter(bend, near) > 0.02)
        self.flat = ~other & ~border & (maximum_filter(bend, (1, 3, 3)) < 1e-5)

    def of(self, batch: dict[str, Any], b: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Truth of one sample, where it is flat and where it is clear of edges."""
        frames = batch["meta"]["frame_indices"][b]
        src, tgt, cam = (frames[batch["query"][f"t_{name}"][b]] for name in ("src", "tgt", "cam"))
        # Constant over a clip: crops do not move, and the worlds' cameras do not zoom.
        net = batch["camera"]["intrinsics"][b, 0]
        full_from_net = self.intrinsics[0] @ np.linalg.inv(net)
        uv_full = homography_points(full_from_net, batch["query"]["uv"][b].astype(float) * NET)
        start, _ = self.world.track("camera", uv_full, src, src)
        end, state = self.world.track("camera", uv_full, src, tgt)
        cam_from_world = invert_rigid(self.world_from_cam[cam])
        xyz = transform_points(cam_from_world, end)
        uv, z = project_points(xyz, np.broadcast_to(net, (len(cam), 3, 3)))
        seen_from = transform_points(invert_rigid(self.world_from_cam[tgt]), end)
        uv_tgt, z_tgt = project_points(seen_from, np.broadcast_to(net, (len(tgt), 3, 3)))
        pixel = self._pixels(uv_full)
        in_tgt = (z_tgt > 0) & inside(uv_tgt)
        pixel_tgt = self._pixels(homography_points(full_from_net, np.where(in_tgt[:, None], uv_tgt, 1.0)))
        ids = self.instances[src, pixel[1], pixel[0]]
        normals = self.normals[src, pixel[1], pixel[0]]
        turned = np.empty_like(normals)
        for ident in np.unique(ids):
            at = ids == ident
            pose = self.world.world_from_instance_at(int(ident), self.world.times)[:, :3, :3]
            turned[at] = np.einsum("nij,nkj,nk->ni", pose[tgt[at]], pose[src[at]], normals[at])
        want = {
            "xyz": xyz,
            "uv": uv / NET,
            "displacement": np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], end - start),
            "normal": np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], turned),
            "visible": (state == Visibility.VISIBLE) & in_tgt,
            "inside": (z > 0) & inside(uv),
        }
        clear = ~self.edge[src, pixel[1], pixel[0]]
        clear &= ~in_tgt | ~self.edge[tgt, pixel_tgt[1], pixel_tgt[0]]
        return want, self.flat[src, pixel[1], pixel[0]], clear

    def _pixels(self, uv: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(uv).astype(int), 0, np.array(SIZE) - 1).T


def inside(uv_px: np.ndarray) -> np.ndarray:
    return np.asarray(((uv_px >= 0) & (uv_px <= NET)).all(axis=-1))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Queries from a worker process, and their truth."""
    root: Path = tmp_path_factory.mktemp("truth")
    truths = {}
    for dataset, motion in MOTIONS.items():
        world = random_world(11, motion=motion, num_frames=FRAMES, size=SIZE)
        truths[dataset] = Truth(world)
        write_world(world, root / f"{dataset}.h5", dataset=dataset)
    pack(sorted(root.glob("*.h5")), root / "set", params=PackParams(min_level="none"), progress=False)
    options = {"batch_size": 4, "clip_frames": 5, "size": NET, "num_queries": 600, "seed": 3}
    parts: list[Any] = []
    strides, shares = set(), []
    with stream(root / "set", workers=1, num_steps=5, **options) as run:
        for batch in run:
            for b, dataset in enumerate(batch["meta"]["dataset"]):
                strides |= set(np.diff(batch["meta"]["frame_indices"][b]).tolist())
                shares.append(batch["camera"]["intrinsics"][b, 0, 0, 0])
                got = {name: array[b].copy() for name, array in batch["target"].items()}
                mask = {name: array[b].copy() for name, array in batch["mask"].items()}
                parts.append((mask, got, *truths[dataset].of(batch, b), np.full(600, dataset)))
    assert len(strides) > 1 and len({round(share, 3) for share in shares}) > 10  # strides and crops differ
    columns = list(zip(*parts, strict=True))
    joined = [
        {name: np.concatenate([part[name] for part in column]) for name in column[0]}
        for column in columns[:3]
    ]
    return Found(*joined, *(np.concatenate(column) for column in columns[3:]))


def test_points_are_where_the_world_has_them(found: Found) -> None:
    at = found.mask["xyz"] & found.flat
    assert at.sum() > 3000 and found.mask["xyz"].mean() > 0.99
    error = np.linalg.norm(found.got["xyz"] - found.want["xyz"], axis=1)
    assert (error / np.linalg.norm(found.want["xyz"], axis=1))[at].max() <= 1e-4


def test_they_are_seen_where_the_camera_shows_them(found: Found) -> None:
    both = found.mask["uv"] & found.want["inside"] & found.flat
    assert both.sum() > 2500
    assert np.abs(found.got["uv"] - found.want["uv"])[both].max() * NET <= 0.01
    near_border = np.abs(found.want["uv"] - np.round(found.want["uv"])).min(axis=1) * NET < 0.02
    decided = found.flat & found.mask["xyz"] & ~near_border
    np.testing.assert_array_equal(found.mask["uv"][decided], found.want["inside"][decided])


def test_they_moved_as_the_world_moves(found: Found) -> None:
    at = found.mask["displacement"] & found.flat
    error = np.linalg.norm(found.got["displacement"] - found.want["displacement"], axis=1)
    assert (error / np.linalg.norm(found.want["xyz"], axis=1))[at].max() <= 1e-4
    moved = np.linalg.norm(found.want["displacement"], axis=1)
    assert (moved[at & (found.dataset == "moving")] > 0.05).sum() > 20
    assert moved[found.dataset == "still"].max() < 1e-9


def test_normals_are_the_worlds_turned_into_the_camera(found: Found) -> None:
    at = found.mask["normal"] & found.flat
    assert at.sum() > 3000
    cosine = np.einsum("ni,ni->n", found.got["normal"].astype(float), found.want["normal"])[at]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1


def test_visibility_is_the_worlds_away_from_edges(found: Found) -> None:
    at = found.mask["visible"] & found.clear
    assert at.sum() > 6000
    agree = found.got["visible"][at] == found.want["visible"][at]
    assert agree.mean() >= 0.999
    hidden = at & ~found.want["visible"]
    assert hidden.sum() > 200  # outside of the crop, or behind something


def test_what_is_not_known_is_no_number(found: Found) -> None:
    for name in ("xyz", "uv", "displacement", "normal"):
        assert (np.isfinite(found.got[name]).all(axis=1) == found.mask[name]).all(), name
