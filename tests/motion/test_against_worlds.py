"""Tracks of scene files against the closed-form answers of the worlds they were rendered from."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from datakit import Visibility, open_scene
from datakit.worlds import World, random_world, write_world_scene

SIZE, FRAMES, COUNT = (96, 96), 8, 4000


def is_near_edge(world: World, uv_px: np.ndarray, t: np.ndarray, reach: int = 2) -> np.ndarray:
    """Tell which pixels lie within `reach` of another instance or of a crease in 1/z (zero on planes)."""
    near = np.zeros(len(uv_px), bool)
    for frame in np.unique(t):
        rendered = world.render(int(frame))
        ids, inverse = rendered.instances, 1 / rendered.z_depth
        bend = np.zeros_like(inverse)
        bend[1:-1, :] = np.abs(np.diff(inverse, 2, axis=0))
        bend[:, 1:-1] = np.maximum(bend[:, 1:-1], np.abs(np.diff(inverse, 2, axis=1)))
        edge = (maximum_filter(ids, 3) != minimum_filter(ids, 3)) | (bend > 0.02 * inverse)
        edge = maximum_filter(edge, 2 * reach + 1)
        at = np.flatnonzero((t == frame) & np.isfinite(uv_px).all(axis=1))
        col, row = np.clip(uv_px[at].astype(int), 0, np.array(SIZE) - 1).T
        near[at] = edge[row, col]
    return near


@pytest.mark.parametrize("motion", ["static", "rigid"])
def test_tracks_from_pixel_centres_are_exact(tmp_path: Path, motion: str) -> None:
    world = random_world(4, motion=motion, num_frames=FRAMES, size=SIZE)
    write_world_scene(world, tmp_path / "s.h5")
    rng = np.random.default_rng(0)
    uv = np.floor(rng.uniform(0, SIZE, (COUNT, 2))) + 0.5
    src, tgt = rng.integers(0, FRAMES, (2, COUNT))
    with open_scene(tmp_path / "s.h5") as scene:
        tracks = scene.track("camera", uv, src, tgt)
    truth_world, _ = world.track("camera", uv, src, tgt)
    # float32 depth at some 10 m is good to a micrometre.
    assert np.linalg.norm(tracks.points_world - truth_world, axis=1).max() < 1e-5


@pytest.mark.parametrize("motion", ["static", "rigid", "points", "mixed"])
@pytest.mark.parametrize("seed", [0, 1])
def test_tracks_and_states_agree_with_the_world(tmp_path: Path, motion: str, seed: int) -> None:
    world = random_world(seed, motion=motion, num_frames=FRAMES, size=SIZE)
    write_world_scene(world, tmp_path / "s.h5")
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0, SIZE, (COUNT, 2))
    src, tgt = rng.integers(0, FRAMES, (2, COUNT))
    with open_scene(tmp_path / "s.h5") as scene:
        tracks = scene.track("camera", uv, src, tgt)
    truth_world, truth_state = world.track("camera", uv, src, tgt)

    away = ~is_near_edge(world, uv, src) & ~is_near_edge(world, tracks.uv_px, tgt)
    assert away.mean() > 0.5
    error = np.linalg.norm(tracks.points_world - truth_world, axis=1)[away]
    # Between pixel centres depth is interpolated: exact on planes, curved surfaces leave a residue.
    assert np.quantile(error, 0.5) < 1e-5
    assert np.quantile(error, 0.99) < 0.05
    agree = (tracks.state == truth_state)[away]
    assert agree.mean() >= 0.999, np.flatnonzero(away)[~agree]
    decided = tracks.state != Visibility.UNKNOWN
    assert decided.mean() > 0.97
    assert (tracks.state == truth_state)[decided].mean() > 0.985


def test_a_second_view_sees_the_same_points(tmp_path: Path) -> None:
    world = random_world(2, motion="rigid", num_frames=4, size=SIZE, num_views=2)
    write_world_scene(world, tmp_path / "s.h5")
    left, right = world.views
    uv = np.random.default_rng(0).uniform(10, 86, (500, 2))
    with open_scene(tmp_path / "s.h5") as scene:
        tracks = scene.track(left, uv, 0, 3, view_tgt=right)
        own = scene.track(left, uv, 0, 3)
        cam_from_world = np.linalg.inv(scene.views[right].world_from_cam[3])
    np.testing.assert_array_equal(tracks.points_world, own.points_world)
    truth, _ = world.track(left, uv, 0, 3)
    z = truth @ cam_from_world[2, :3] + cam_from_world[2, 3]
    assert np.nanmedian(np.abs(tracks.z_depth - z)) < 1e-5
    assert (tracks.state == Visibility.VISIBLE).mean() > 0.3
    assert np.nanmedian(np.abs(tracks.uv_px - own.uv_px)[:, 0]) > 1  # it is another view


def test_object_coordinates_give_the_same_tracks(tmp_path: Path) -> None:
    world = random_world(5, motion="rigid", num_frames=6, size=SIZE)
    write_world_scene(world, tmp_path / "s.h5")
    rows, cols = np.nonzero(world.render(1).instances)
    uv = np.stack([cols, rows], -1) + 0.5
    with open_scene(tmp_path / "s.h5") as scene:
        by_motion = scene.track("camera", uv, 1, 4)
        by_coords = scene.track("camera", uv, 1, 4, via="object_coords")
    gap = np.linalg.norm(by_motion.points_world - by_coords.points_world, axis=1)
    assert len(gap) > 100 and np.quantile(gap, 0.99) < 1e-3
