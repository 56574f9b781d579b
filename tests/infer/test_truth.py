"""The oracle is right, and its errors are functions of the query."""

from __future__ import annotations

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.infer.answers import ClipFrames, ClipInfo, pick_answers
from datakit.infer.truth import Errors, TruthAnswers
from datakit.scene import open_scene
from datakit.worlds import write_world_scene
from tests.infer.oracles import SIZE, open_clip, room_world

NAMES = ("xyz", "uv", "visible", "displacement", "normal", "confidence")


def queries(count: int, num_frames: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.random((count, 2)), *rng.integers(0, num_frames, (3, count))


def test_against_the_worlds_own_tracks():
    world = room_world()
    uv, t_src, t_tgt, t_cam = queries(400, 8)
    answer = open_clip(world).ask(uv, t_src, t_tgt, t_cam)
    view = world.views["camera"]
    points, state = world.track("camera", uv * SIZE, t_src, t_tgt)
    cam_from_world = np.linalg.inv(view.world_from_cam[t_cam])
    np.testing.assert_allclose(answer.xyz, g.transform_points(cam_from_world, points), atol=1e-12)
    start, _ = world.track("camera", uv * SIZE, t_src, t_src)
    moved = np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], points - start)
    np.testing.assert_allclose(answer.displacement, moved, atol=1e-12)
    np.testing.assert_array_equal(answer.visible, state == 1)
    in_front = answer.xyz[:, 2] > 0
    k = view.intrinsics[t_cam]
    projected = np.einsum("nij,nj->ni", k, answer.xyz)[in_front]
    np.testing.assert_allclose(answer.uv[in_front] * SIZE, projected[:, :2] / projected[:, 2:], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(answer.normal, axis=1), 1)


def test_normals_face_the_source_camera_and_turn_with_the_box():
    world = room_world()
    t = 3
    frame = world.render(t)
    rows, cols = np.nonzero(frame.instances == 1)
    uv = (np.stack([cols, rows], axis=1) + 0.5) / SIZE
    pose = world.views["camera"].world_from_cam[t]
    own = open_clip(world).ask(uv, *(np.full(len(uv), t) for _ in range(3)))
    np.testing.assert_allclose(own.normal @ pose[:3, :3].T, frame.normals_world[rows, cols], atol=1e-12)
    later = open_clip(world).ask(uv, np.full(len(uv), t), np.full(len(uv), 6), np.full(len(uv), t))
    turn = [world.world_from_instance_at(1, [world.times[k]])[0, :3, :3] for k in (t, 6)]
    expected = frame.normals_world[rows, cols] @ (turn[1] @ turn[0].T).T
    np.testing.assert_allclose(later.normal @ pose[:3, :3].T, expected, atol=1e-12)


def test_a_scene_answers_like_its_world(tmp_path):
    world = room_world(num_frames=4)
    write_world_scene(world, tmp_path / "world.h5")
    rng = np.random.default_rng(1)
    uv = (rng.integers(0, SIZE, (300, 2)) + 0.5) / SIZE  # depth maps know pixel centres
    times = rng.integers(0, 4, (3, 300))
    exact = open_clip(world).ask(uv, *times)
    with open_scene(tmp_path / "world.h5") as scene:
        answers = TruthAnswers.of_scene(scene)
        found = answers.open_info(ClipInfo(SIZE, world.times, np.arange(4))).ask(uv, *times)
        with pytest.raises(UsageError, match="No such view"):
            TruthAnswers.of_scene(scene, "left")
    known = np.isfinite(found.xyz).all(axis=1)
    assert known.mean() > 0.95
    np.testing.assert_allclose(found.xyz[known], exact.xyz[known], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.displacement[known], exact.displacement[known], atol=1e-5)
    # A depth map does not know what edges hide; such points are not said to be seen.
    assert (found.visible[known] == exact.visible[known]).mean() > 0.96
    assert (found.visible[known] <= exact.visible[known]).mean() > 0.99


def test_errors_follow_from_the_query_alone():
    clip = open_clip(room_world(), errors=Errors(noise=0.02, outliers=0.1, flips=0.1, seed=3))
    asked = queries(200, 8)
    whole = clip.ask(*asked)
    order = np.random.default_rng(2).permutation(200)
    mixed = clip.ask(*(part[order] for part in asked))
    some = clip.ask(*(part[50:60] for part in asked))
    other = open_clip(room_world(), errors=Errors(noise=0.02, outliers=0.1, seed=4)).ask(*asked)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(mixed, name), getattr(pick_answers(whole, order), name))
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[50:60])
    assert not np.array_equal(other.xyz, whole.xyz)


def test_errors_are_as_large_as_asked_for():
    asked = queries(4000, 8)
    exact = open_clip(room_world()).ask(*asked)
    noisy = open_clip(room_world(), errors=Errors(noise=0.02)).ask(*asked)
    shares = (noisy.xyz - exact.xyz) / np.abs(exact.xyz[:, 2:])
    np.testing.assert_allclose(shares.std(axis=0), 0.02, rtol=0.06)
    assert np.abs(shares.mean(axis=0)).max() < 0.002
    assert np.abs(np.corrcoef(shares.T) - np.eye(3)).max() < 0.06
    spoilt = open_clip(room_world(), errors=Errors(outliers=0.2, flips=0.3)).ask(*asked)
    assert abs((spoilt.xyz != exact.xyz).any(axis=1).mean() - 0.2) < 0.03
    assert abs((spoilt.visible != exact.visible).mean() - 0.3) < 0.03


def test_a_clips_unit_is_its_own():
    world, errors = room_world(), Errors(scale_spread=0.5, seed=1)
    one, two = (open_clip(world, frames, errors) for frames in (range(0, 4), range(2, 6)))
    assert one.scale != two.scale and open_clip(world, range(0, 5), errors).scale == one.scale
    uv = queries(50, 1)[0]
    at = [np.full(50, t) for t in range(4)]
    first, second = one.ask(uv, at[2], at[3], at[2]), two.ask(uv, at[0], at[1], at[0])
    for name in ("xyz", "displacement"):
        a, b = getattr(first, name) / one.scale, getattr(second, name) / two.scale
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("uv", "times"),
    [([1.01, 0.5], (0, 0, 0)), ([np.nan, 0.5], (0, 0, 0)), ([0.5, 0.5], (0, 8, 0)), ([0.5, 0.5], (-1, 0, 0))],
)
def test_nothing_is_clamped(uv, times):
    with pytest.raises(UsageError, match="outside"):
        open_clip(room_world()).ask(np.array([uv]), *(np.array([t]) for t in times))


def test_clips_that_truth_does_not_know():
    answers = TruthAnswers.of_world(room_world(), max_frames=6)
    times = np.arange(10) / 10
    for info, match in (
        (ClipInfo(SIZE, times[:7], np.arange(7)), "too long"),
        (ClipInfo(SIZE, times[:2], np.array([7, 8])), "does not know"),
        (ClipInfo((40, 30), times[:2], np.arange(2)), "another size"),
    ):
        with pytest.raises(UsageError, match=match):
            answers.open_info(info)
    frames = np.zeros((2, 36, 48, 3), np.uint8)
    assert answers.open(ClipFrames(frames, times[:2], np.arange(2))).num_frames == 2
    for bad in ((frames[..., :2], times[:2], np.arange(2)), (frames, times[:2], np.array([3, 3]))):
        with pytest.raises(UsageError):
            ClipFrames(*bad)


def test_sky_is_not_known():
    from tests.worlds.helpers import hand_world

    world = hand_world([], num_frames=2)
    clip = TruthAnswers.of_world(world).open_info(ClipInfo((64, 48), world.times, np.arange(2)))
    answer = clip.ask(np.array([[0.5, 0.1]]), np.array([0]), np.array([1]), np.array([1]))
    assert np.isnan(answer.xyz).all() and answer.visible[0] == 0 and answer.confidence[0] < 1e-3
