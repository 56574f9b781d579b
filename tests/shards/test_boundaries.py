from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from datakit import MotionKind, open_scene
from datakit.shards.boundaries import (
    boundary_rows,
    depth_boundary,
    frame_motion_boundary,
    moves,
    scene_displacement,
)
from datakit.shards.clips import Origin, Window, make_clip
from datakit.shards.params import PackParams
from datakit.worlds import random_world
from datakit.worlds.scene import world_motion
from tests.tiny import write_tiny

EDGE, MOTION_EDGE = PackParams().depth_edge, PackParams().motion_edge


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour (of eight) of another label."""
    pad = np.pad(labels, 1, mode="edge")
    height, width = labels.shape
    around = [pad[r : r + height, c : c + width] != labels for r in range(3) for c in range(3)]
    return np.any(around, axis=0)


def test_depth_boundary_is_the_outline_of_the_square(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        view = scene.views["cam"]
        for t in range(view.num_frames):
            found = depth_boundary(view.z_depth(t), EDGE, 0)
            assert np.array_equal(found, outline(view.instances(t)))
            grown = depth_boundary(view.z_depth(t), EDGE, 2)
            assert np.array_equal(grown, binary_dilation(found, np.ones((5, 5))))


def test_depth_boundary_does_not_depend_on_scale(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        z = scene.views["cam"].z_depth(0)
    for factor in (1e-4, 1e4):
        assert np.array_equal(depth_boundary(z, EDGE, 1), depth_boundary(z * factor, EDGE, 1))


def test_small_steps_and_planes_at_grazing_angles_are_no_boundary() -> None:
    row = np.arange(60)[:, None] + np.zeros((1, 80))
    floor = 400 / (row + 0.5)  # a floor up to the horizon: depth doubles from one row to the next at its end
    assert not depth_boundary(floor, EDGE, 1).any()
    step = np.where(row < 30, 2.0, 2.0 * (1 + EDGE))
    assert not depth_boundary(step, EDGE, 1).any()
    step = np.where(row < 30, 2.0, 2.0 * (1 + 3 * EDGE))
    assert set(np.flatnonzero(depth_boundary(step, EDGE, 0).any(axis=1))) == {29, 30}


def test_borders_of_unknown_depth_are_no_boundary() -> None:
    z = np.full((40, 40), 3.0)
    z[10:20, 10:20] = np.nan
    z[25:30, 25:30] = 1.0
    z[24, 20:30] = np.nan  # growing must not spill into the unknown
    found = depth_boundary(z, EDGE, 3)
    assert not found[8:20, 8:20].any()
    assert found[26:31, 24:31].any()
    assert not found[np.isnan(z)].any()


def tiny_motion_boundary(path: Path, t: int = 0) -> tuple[np.ndarray, np.ndarray]:
    with open_scene(path) as scene:
        view = scene.views["cam"]
        found = frame_motion_boundary(
            view.z_depth(t),
            view.instances(t),
            view.depth_intrinsics[t],
            view.world_from_cam[t],
            scene.motion,
            t,
            t + 1,
            edge=MOTION_EDGE,
            dilate=0,
            grid=256,
        )
        return found, outline(view.instances(t))


def test_the_outline_of_a_moving_thing_is_a_motion_boundary(tmp_path: Path) -> None:
    found, edge = tiny_motion_boundary(write_tiny(tmp_path / "s.h5"))
    assert np.array_equal(found, edge)


def test_the_outline_of_a_thing_at_rest_is_none(tmp_path: Path) -> None:
    # The camera moves, the square has its own label and is a rigid instance: only motion in the world counts.
    found, edge = tiny_motion_boundary(write_tiny(tmp_path / "s.h5", square_step=(0, 0, 0)))
    assert edge.any()
    assert not found.any()


def test_motion_below_the_threshold_is_none(tmp_path: Path) -> None:
    # focal 40 px, z 5, image 40 px wide: a step of s metres is a share of s / 5; half of it is compared.
    for factor, expected in ((0.9, False), (1.2, True)):
        step = (factor * 2 * MOTION_EDGE * 5, 0, 0)
        found, _ = tiny_motion_boundary(write_tiny(tmp_path / f"{factor}.h5", square_step=step))
        assert found.any() == expected


def test_displacement_is_that_of_the_world() -> None:
    world = random_world(5, num_frames=4, size=(64, 64), motion="rigid")
    motion = world_motion(world)
    frame = world.render(1)
    view = world.views["camera"]
    moved = scene_displacement(
        frame.z_depth, frame.instances, view.intrinsics[1], view.world_from_cam[1], motion, 1, 2
    )
    rng = np.random.default_rng(0)
    uv = np.stack([rng.integers(0, 64, 400), rng.integers(0, 64, 400)], axis=-1) + 0.5
    now, _ = world.track("camera", uv, np.full(400, 1), np.full(400, 1))
    then, _ = world.track("camera", uv, np.full(400, 1), np.full(400, 2))
    found = moved[uv[:, 1].astype(int), uv[:, 0].astype(int)]
    seen = np.isfinite(now).all(axis=-1) & np.isfinite(found).all(axis=-1)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(found[seen], (then - now)[seen], atol=1e-6)
    assert moves(motion)


def test_unknown_motion_is_no_boundary(tmp_path: Path) -> None:
    from dataclasses import replace

    path = write_tiny(tmp_path / "s.h5")
    with open_scene(path) as scene:
        view = scene.views["cam"]
        motion = replace(scene.motion, instance_motion=np.array([1, MotionKind.UNKNOWN], np.uint8))
        found = frame_motion_boundary(
            view.z_depth(0),
            view.instances(0),
            view.depth_intrinsics[0],
            view.world_from_cam[0],
            motion,
            0,
            1,
            edge=MOTION_EDGE,
            dilate=1,
            grid=256,
        )
    assert not found.any()


def test_large_grids_are_thinned_without_moving_the_boundary(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", size=(160, 120), square_half=0.6)
    with open_scene(path) as scene:
        view = scene.views["cam"]
        args = (
            view.z_depth(0),
            view.instances(0),
            view.depth_intrinsics[0],
            view.world_from_cam[0],
            scene.motion,
            0,
            1,
        )
        full = frame_motion_boundary(*args, edge=MOTION_EDGE, dilate=0, grid=256)
        thin = frame_motion_boundary(*args, edge=MOTION_EDGE, dilate=0, grid=40)
    assert 0 < thin.sum() < full.sum() / 3
    assert not (thin & ~binary_dilation(full, np.ones((3, 3)), iterations=4)).any()


def test_rows_are_capped_evenly_and_repeatably() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 30:130] = True
    rows = boundary_rows(mask, 3, 500)
    assert rows.shape == (500, 3)
    assert rows.dtype == np.int32
    assert (rows[:, 0] == 3).all()
    assert mask[rows[:, 1], rows[:, 2]].all()
    assert len(np.unique(rows, axis=0)) == 500
    assert np.array_equal(rows, boundary_rows(mask, 3, 500))
    assert not np.array_equal(rows[:, 1:], boundary_rows(mask, 4, 500)[:, 1:])
    quarters = np.histogram2d(rows[:, 1], rows[:, 2], bins=2)[0]
    assert quarters.min() > 90
    assert len(boundary_rows(mask, 0, 10**6)) == mask.sum()


def test_clip_holds_both_sets_also_for_its_last_frame(tmp_path: Path) -> None:
    import safetensors.numpy

    with open_scene(write_tiny(tmp_path / "s.h5", num_frames=5)) as scene:
        clip = make_clip(
            scene,
            Window("cam", 1, 3),
            Origin("s", "pass", "c", "p"),
            PackParams(edge_dilate=0, edges_per_frame=999),
        )
        arrays = safetensors.numpy.load(dict(clip.members)["arrays.safetensors"])
        for i, t in enumerate((1, 2, 3)):
            expected = np.argwhere(outline(scene.views["cam"].instances(t)))
            for name in ("boundary_depth", "boundary_motion"):
                rows = arrays[name]
                assert np.array_equal(rows[rows[:, 0] == i][:, 1:], expected), name
