"""Measured overlaps against worlds, the file beside the scene, and sets of frames drawn from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converters.colmap as colmap
from datakit import Visibility
from datakit import geometry as g
from datakit.covisibility import (
    SUFFIX,
    CovisibilityParams,
    draw_set,
    measure_covisibility,
    read_covisibility,
    write_covisibility,
)
from datakit.covisibility.look import DepthFrame, depth_frame, draw_points, look
from datakit.errors import ConventionError, FormatError, QualityError, UsageError
from datakit.scene import Scene, open_scene, write_scene
from datakit.worlds import World, random_world, world_scene_stream, write_world_scene
from tests.tiny import tiny_stream, write_tiny


def world_scene(world: World, path: Path) -> Scene:
    write_world_scene(world, path)
    return open_scene(path)


def true_overlap(world: World, view_i: str, i: int, view_j: str, j: int) -> float:
    """Share of all static pixels of frame i whose surface frame j sees, by casting rays."""
    view = world.views[view_i]
    uv = g.pixel_centres(view.size).reshape(-1, 2)
    hits = world.cast_pixels(view_i, uv, i / world.fps)
    cam = g.camera_rays(uv, view.intrinsics[i]) * hits.scale[:, None]
    points = g.transform_points(view.world_from_cam[i], cam)[hits.instance >= 0]
    state, _, _ = world.see(view_j, points, j / world.fps)
    return float((state == Visibility.VISIBLE).mean())


@pytest.mark.parametrize("seed", [0, 3])
def test_overlaps_are_the_worlds(seed: int, tmp_path: Path) -> None:
    world = random_world(seed, num_frames=8, size=(64, 48), motion="static", num_views=2, fps=2.0)
    with world_scene(world, tmp_path / "s.h5") as scene:
        found = measure_covisibility(scene, CovisibilityParams(points=400))
    assert found.views == ("camera", "camera_1") and found.overlap.shape == (16, 16)
    assert found.view.tolist() == [0] * 8 + [1] * 8 and found.frame.tolist() == [*range(8)] * 2
    truth = np.array(
        [
            [
                true_overlap(
                    world,
                    found.views[found.view[a]],
                    int(found.frame[a]),
                    found.views[found.view[b]],
                    int(found.frame[b]),
                )
                for b in range(0, 16, 4)
            ]
            for a in range(0, 16, 4)
        ]
    )
    # 400 pixels of a share p are good to sqrt(p (1 - p) / 400) = 0.025; edges take some more.
    assert np.abs(found.overlap[::4, ::4] - truth).max() < 0.12
    assert np.abs(found.overlap[::4, ::4] - truth).mean() < 0.03
    assert np.diag(found.overlap).min() == 1 and truth.min() < 0.9
    assert found.params["used"] == "depth" and found.params["points"] == 400


def test_a_close_up_lies_within_an_overview(tmp_path: Path) -> None:
    """The matrix is not symmetric: [i, j] is about what i shows."""
    stream = tiny_stream(
        num_frames=2, camera_step=(0.0, 0.0, 5.0), square_step=(0.0, 0.0, 0.0), square_half=0.0
    )
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        overlap = measure_covisibility(scene).overlap
    assert overlap[1, 0] == 1 and overlap[0, 1] == pytest.approx(0.25, abs=0.06)


def test_hidden_is_not_covisible_and_unknown_is_left_out(tmp_path: Path) -> None:
    z = np.full((12, 16), 4.0, np.float32)
    z[:, :8] = 2.0  # a near half
    z[:6, 8:] = np.nan  # and a quarter of which nothing is known
    k = np.array([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    frame = DepthFrame(z, k, "pinhole", (), np.eye(4), 0.02)
    points = np.array(
        [
            [-1.6, 0, 4.0],
            [-0.8, 0, 2.0],
            [1.6, 1.0, 4.0],
            [1.6, -1.0, 4.0],
            [1.6, 1.0, 3.0],
            [0, 0, -2.0],
            [9, 0, 4.0],
        ]
    )
    assert look(frame, points).tolist() == [
        Visibility.OCCLUDED,
        Visibility.VISIBLE,
        Visibility.VISIBLE,
        Visibility.UNKNOWN,
        Visibility.UNKNOWN,  # floats in front of the wall: contradicts
        Visibility.OUTSIDE,
        Visibility.OUTSIDE,
    ]


def test_what_a_frame_cannot_say_is_left_out_of_the_share(tmp_path: Path) -> None:
    """Half of the second frame has no depth: of the other half, all is seen; the first sees all of that half."""
    stream = tiny_stream(num_frames=3, camera_step=(0.0, 0.0, 0.0), square_half=0.0)
    frames = list(stream.frames)
    for t, known in ((1, slice(0, 15)), (2, slice(0, 0))):
        z = np.full_like(frames[t].layers["z_depth"], np.nan)
        z[known] = frames[t].layers["z_depth"][known]
        frames[t] = replace(frames[t], layers={**frames[t].layers, "z_depth": z})
    stream.frames = iter(frames)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene:
        overlap = measure_covisibility(scene, CovisibilityParams(points=2000)).overlap
    assert overlap[0, 1] == overlap[1, 0] == 1
    assert np.isnan(overlap[2]).all() and np.isnan(overlap[:, 2]).all()


def test_beside_a_hole_the_depth_around_it_stands_for_it() -> None:
    """Sparse depth: single known pixels; but not where two surfaces meet."""
    k = np.array([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    z = np.full((12, 16), np.nan, np.float32)
    z[6, 8] = 4.0
    z[2, 2], z[2, 4] = 2.0, 4.0
    frame = DepthFrame(z, k, "pinhole", (), np.eye(4), 0.02)
    uv = np.array([[8.5, 6.5], [9.5, 6.5], [10.5, 6.5], [3.5, 2.5]])
    points = g.unproject_pixels(uv, np.full(4, 4.0), k)
    assert look(frame, points).tolist() == [1, 1, 0, 0]


def test_points_are_drawn_once_and_lie_on_the_surface() -> None:
    k = np.array([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    z = np.full((12, 16), 4.0, np.float32)
    z[0] = np.nan
    pose = g.rigid_from(g.rotation_from_axis_angle([0, 0, 1.0]), [1, 2, 3])
    frame = DepthFrame(z, k, "pinhole", (), pose, 0.02)
    points = draw_points(frame, 1000, np.random.default_rng(0))
    assert len(points) == 11 * 16 == len(np.unique(points.round(6), axis=0))
    assert np.allclose(points[:, 2], 7) and (look(frame, points) == Visibility.VISIBLE).all()


def test_only_what_is_static_is_carried(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", square_half=1.5)
    with open_scene(path) as scene:
        frame = depth_frame(scene.views["cam"], 0, scene.motion)
        assert frame is not None and frame.moving is not None
        assert np.array_equal(frame.moving, scene.views["cam"].instances(0) == 1)
        points = draw_points(frame, 10_000, np.random.default_rng(0))
        assert np.allclose(points[:, 2], 10)
        still = depth_frame(scene.views["cam"], 0)
        assert still is not None and still.moving is None


def test_unknown_motion_cannot_be_measured(tmp_path: Path) -> None:
    stream = tiny_stream()
    motion = replace(
        stream.record.motion,
        instance_motion=np.array([0, 0], np.uint8),
        world_from_instance=np.full((4, 2, 4, 4), np.nan),
    )
    stream.record = replace(stream.record, motion=motion)
    write_scene(tmp_path / "s.h5", stream)
    with open_scene(tmp_path / "s.h5") as scene, pytest.raises(QualityError, match="static"):
        measure_covisibility(scene)


def test_frames_without_a_pose_are_not_measured(tmp_path: Path) -> None:
    poses = tiny_stream().record.views["cam"].world_from_cam.copy()
    poses[2] = np.nan
    path = write_tiny(tmp_path / "s.h5", pose_is_known=np.array([1, 1, 0, 1], bool), world_from_cam=poses)
    with open_scene(path) as scene:
        found = measure_covisibility(scene)
    assert found.frame.tolist() == [0, 1, 3]


def test_long_scenes_are_thinned_evenly(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", num_frames=21, camera_step=(0.01, 0, 0))
    with open_scene(path) as scene:
        found = measure_covisibility(scene, CovisibilityParams(max_frames=5))
    assert found.frame.tolist() == [0, 5, 10, 15, 20] and found.overlap.shape == (5, 5)


def test_sparse_points_are_counted(tmp_path: Path) -> None:
    world = random_world(0, num_frames=6, size=(64, 48), motion="static", fps=2.0)
    colmap.write_native(iter([world]), tmp_path / "raw", "sparse")
    (ref,) = colmap.scenes(tmp_path / "raw", colmap.Params())
    write_scene(tmp_path / "s.h5", colmap.read(tmp_path / "raw", ref, colmap.Params()))
    with open_scene(tmp_path / "s.h5") as scene:
        found = measure_covisibility(scene)
        seen = scene.motion.point_state["camera"] == Visibility.VISIBLE
        by_depth = measure_covisibility(scene, CovisibilityParams(method="depth"))
    assert found.params["used"] == "points" and found.params["method"] == "auto"
    for i, j in ((0, 5), (5, 0), (2, 3)):
        assert found.overlap[i, j] == pytest.approx((seen[:, i] & seen[:, j]).sum() / seen[:, i].sum())
    assert by_depth.params["used"] == "depth"


def test_nothing_random_but_the_seed(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", camera_step=(1.0, 0, 0))
    with open_scene(path) as scene:
        a, b, c = (
            measure_covisibility(scene, CovisibilityParams(points=40, seed=s)).overlap for s in (0, 0, 1)
        )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize(
    "changes", [{"method": "magic"}, {"points": 0}, {"max_frames": 0}, {"tolerance": 0.0}]
)
def test_parameters_are_checked(tmp_path: Path, changes: dict[str, object]) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene, pytest.raises(UsageError):
        measure_covisibility(scene, CovisibilityParams(**changes))  # type: ignore[arg-type]


# --- the file ---------------------------------------------------------------------------------------------------


def test_the_file_holds_everything_and_is_the_same_every_time(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        found = measure_covisibility(scene)
    for name in "ab":
        write_covisibility(tmp_path / f"{name}{SUFFIX}", found, "0" * 64)
    assert (tmp_path / f"a{SUFFIX}").read_bytes() == (tmp_path / f"b{SUFFIX}").read_bytes()
    again = read_covisibility(tmp_path / f"a{SUFFIX}", "0" * 64)
    assert again.views == found.views and dict(again.params) == dict(found.params)
    for name in ("view", "frame", "overlap"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=name == "overlap")
    with pytest.raises(ConventionError, match="another scene"):
        read_covisibility(tmp_path / f"a{SUFFIX}", "1" * 64)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        write_covisibility(tmp_path / "c", measure_covisibility(scene), "0")
    good = (tmp_path / "c").read_bytes()
    tensors = {
        "view": np.zeros(2, np.int32),
        "frame": np.zeros(2, np.int32),
        "overlap": np.zeros((2, 3), np.float32),
    }
    from safetensors import safe_open

    with safe_open(str(tmp_path / "c"), framework="numpy") as file:
        named = file.metadata()
    for bad in (
        save(tensors, named),
        b"",
        good[:40],
        good[:-1],
        save(tensors),
        good.replace(b"datakit-covisibility", b"datakit-covisibilitz"),
    ):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(FormatError):
            read_covisibility(tmp_path / "bad")
    with pytest.raises(FormatError):
        read_covisibility(tmp_path / "nothing")


# --- sets ---------------------------------------------------------------------------------------------------------


def islands() -> np.ndarray:
    """Two chains of five frames, each frame overlapping with its neighbours, and a frame that sees nothing."""
    chain = np.eye(5) + 0.4 * (np.eye(5, k=1) + np.eye(5, k=-1))
    out = np.full((11, 11), np.nan, np.float32)
    out[:5, :5] = out[5:10, 5:10] = chain
    return out


def test_sets_stay_together_and_never_repeat() -> None:
    overlap = islands()
    for seed in range(50):
        drawn = draw_set(overlap, 4, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == len(drawn)
        for k in range(1, len(drawn)):
            assert np.nanmax(overlap[drawn[k], drawn[:k]]) >= 0.1
        assert len(drawn) == (1 if drawn[0] == 10 else 4)
    firsts = {int(draw_set(overlap, 1, np.random.default_rng(seed))[0]) for seed in range(200)}
    assert firsts == set(range(11))


def test_sets_follow_their_limits() -> None:
    overlap = islands()
    assert draw_set(overlap, 3, np.random.default_rng(0), least=0.5, first=2).tolist() == [2]
    assert draw_set(overlap, 3, np.random.default_rng(0), most=0.3, first=2).tolist() == [2]
    one_way = np.array([[1.0, 1.0], [0.05, 1.0]], np.float32)
    assert draw_set(one_way, 2, np.random.default_rng(0), first=0).tolist() == [0]
    a, b = (draw_set(overlap, 4, np.random.default_rng(5)).tolist() for _ in range(2))
    assert a == b


@pytest.mark.parametrize("arguments", [(0, None), (2, 11), (2, -1)])
def test_sets_that_cannot_be(arguments: tuple[int, int | None]) -> None:
    count, first = arguments
    with pytest.raises(UsageError):
        draw_set(islands(), count, np.random.default_rng(0), first=first)
    with pytest.raises(UsageError):
        draw_set(np.zeros((0, 0), np.float32), 1, np.random.default_rng(0))


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datakit.cli import main

    write_tiny(tmp_path / "a.h5")
    stream = world_scene_stream(random_world(1, num_frames=2, size=(16, 12), motion="static"))
    write_scene(tmp_path / "b.h5", stream)
    assert main(["covisibility", str(tmp_path), "--points", "50"]) == 0
    out = capsys.readouterr().out
    assert "4 frames, mean overlap" in out and "2 frames" in out
    files = {name: tmp_path / f"{name}{SUFFIX}" for name in "ab"}
    before = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()}
    assert main(["covisibility", str(tmp_path), "--points", "50"]) == 0  # kept
    assert {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()} == before
    assert (
        main(["covisibility", str(tmp_path / "a.h5"), "--points", "51"]) == 0
    )  # other options: measured again
    assert files["a"].read_bytes() != before["a"][1]
    assert (
        main(["covisibility", str(tmp_path / "a.h5"), "--out", str(tmp_path / "o"), "--method", "points"])
        == 1
    )
    assert "cannot be measured" in capsys.readouterr().err
    assert not (tmp_path / "o" / f"a{SUFFIX}").exists()
