"""Whole certificates of small scenes: what they say when geometry is good, and when it cannot be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit import geometry as g
from datakit import open_scene
from datakit.certify import certify_scene, load_thresholds
from datakit.certify import knobs as k
from datakit.certify.frames import FrameStore
from datakit.certify.sampling import choose_pairs
from datakit.motion import Visibility
from datakit.scene import decode_image, encode_png
from datakit.worlds import random_world, write_world_scene

from .faults import BARE, Clip, bare, make_clip

SMALL = {"num_frames": 8, "size": (80, 64)}


@pytest.fixture(scope="module")
def moving() -> Clip:
    return make_clip(3, "mixed", "moving", **SMALL)


@pytest.fixture(scope="module")
def still() -> Clip:
    return make_clip(0, "static", "static", **SMALL)


@pytest.mark.slow
def test_a_good_scene_passes_and_its_certificate_repeats(moving: Clip, tmp_path: Path) -> None:
    path = moving.write(tmp_path / "s.h5")
    first = certify_scene(path)
    assert first.verdict == "pass", [
        (c.name, c.reason) for c in first.checks if c.verdict in ("warn", "fail")
    ]
    with open_scene(path) as scene:
        assert certify_scene(scene).to_json() == first.to_json()
    other = certify_scene(path, seed=1)
    assert other.verdict == "pass"
    assert other.to_json() != first.to_json()
    assert (first.dataset, first.scene_id) == ("world", moving.record.id)
    assert len(first.scene_sha256) == len(first.thresholds_sha256) == 64


def test_a_still_camera_in_a_still_world_shows_no_pose_and_says_so(still: Clip, tmp_path: Path) -> None:
    certificate = certify_scene(bare(still).write(tmp_path / "s.h5"))
    reprojection = certificate.check("depth_reprojection")
    assert reprojection.verdict == "not_testable"
    assert "the camera does not move" in reprojection.reason
    for fault in (k.INVERTED, k.AXES, k.TRANSPOSED, k.QUATERNION, k.SCALE, k.RAY, k.HALF_PIXEL, k.POSE_TIME):
        assert not certificate.can_see(fault)
        assert fault in reprojection.cannot_see
    # Colour against depth needs no motion, nor does a K of quite another size.
    assert certificate.can_see(k.HALF_PIXEL_COLOUR)
    assert certificate.can_see(k.OTHER_K)


def test_a_turning_camera_cannot_tell_the_scale_of_depth(tmp_path: Path) -> None:
    clip = make_clip(4, "static", "rotating", **SMALL)
    certificate = certify_scene(bare(clip).write(tmp_path / "s.h5"))
    assert certificate.verdict == "pass"
    assert not certificate.can_see(k.SCALE)
    assert k.SCALE in certificate.check("depth_reprojection").cannot_see
    assert certificate.can_see(k.INVERTED) and certificate.can_see(k.RAY)


def test_two_still_cameras_have_parallax(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_world_scene(random_world(5, **SMALL, motion="static", camera="static", num_views=2), path)
    certificate = certify_scene(path)
    assert certificate.verdict == "pass"
    assert k.SCALE in certificate.check("depth_reprojection").can_see


def test_photos_without_an_order_are_compared_too(tmp_path: Path) -> None:
    photos = bare(make_clip(0, "static", "moving", **SMALL))
    photos = replace(photos, record=replace(photos.record, time_kind="set"))
    path = photos.write(tmp_path / "s.h5")
    certificate = certify_scene(path)
    assert certificate.verdict == "pass"
    assert k.SCALE in certificate.check("depth_reprojection").can_see
    assert not certificate.can_see(k.POSE_TIME) and not certificate.can_see(k.IMAGE_TIME)


def test_layers_on_other_grids_are_compared_where_they_are(moving: Clip, tmp_path: Path) -> None:
    half = moving.view.intrinsics * np.array([0.5, 0.5, 1.0])[:, None]
    layers = dict(moving.view.layers)
    layers["z_depth"] = replace(layers["z_depth"], size=(40, 32), intrinsics=half)
    clip = moving.with_view(layers=layers).with_layer(
        "z_depth",
        lambda t, _: moving.world.render(t, intrinsics=half[0], size=(40, 32)).z_depth.astype(np.float32),
    )
    certificate = certify_scene(clip.keep((*BARE, "instances")).write(tmp_path / "s.h5"))
    assert certificate.verdict == "pass", [(c.name, c.reason) for c in certificate.checks]
    assert k.HALF_PIXEL in certificate.check("depth_reprojection").can_see


def test_a_scene_without_depth_has_little_to_certify(moving: Clip, tmp_path: Path) -> None:
    certificate = certify_scene(moving.keep(["rgb"]).write(tmp_path / "s.h5"))
    verdicts = {check.name: check.verdict for check in certificate.checks}
    assert {name for name, verdict in verdicts.items() if verdict != "not_testable"} == {"pose", "intrinsics"}
    assert all(check.reason for check in certificate.checks if check.verdict == "not_testable")


def _cut(clip: Clip, left: int, top: int, size: tuple[int, int]) -> Clip:
    """Cut a window out of every image; trajectories beyond it are outside."""
    (width, height), clip = size, clip.keep((*BARE, "instances"))
    window = np.s_[top : top + height, left : left + width]
    clip = clip.with_layer("rgb", lambda t, data: encode_png(decode_image(data, "x")[window]))
    for name in ("z_depth", "instances"):
        clip = clip.with_layer(name, lambda t, raster: np.ascontiguousarray(raster[window]))
    intrinsics = clip.view.intrinsics.copy()
    intrinsics[:, :2, 2] -= (left, top)
    layers = {name: replace(layer, size=size) for name, layer in clip.view.layers.items()}
    clip = clip.with_view(size=size, intrinsics=intrinsics, layers=layers)
    motion, view = clip.record.motion, clip.view
    assert motion.points_world is not None
    cam_from_world = g.invert_rigid(view.world_from_cam)[None]
    uv, _ = g.project_points(g.transform_points(cam_from_world, motion.points_world), intrinsics[0])
    outside = ~((uv >= 0) & (uv <= size)).all(axis=-1)
    state = np.where(outside, np.uint8(Visibility.OUTSIDE), motion.point_state["camera"])
    return clip.with_motion(point_state={"camera": state})


def test_trajectories_at_the_rim_of_a_small_image_are_inside_it(tmp_path: Path) -> None:
    """Depth cannot be interpolated there, a fifth of 24x20; but a point may well be called visible."""
    clip = _cut(make_clip(2, "points", "moving", **SMALL), 36, 28, (24, 20))
    aside = np.float32(clip.view.world_from_cam[0, :3, 0] * 50)
    wrong = clip.with_motion(points_world=clip.record.motion.points_world + aside)
    shares = []
    for number, each in enumerate((clip, wrong)):
        check = certify_scene(each.write(tmp_path / f"{number}.h5")).check("track_depth")
        shares += [m.value for m in check.measures if m.name == "visible_inside"]
    assert shares[0] > 0.99 and shares[1] < 0.5


def test_bad_depth_and_bad_poses_are_counted(moving: Clip, tmp_path: Path) -> None:
    def spoil(t: int, z: np.ndarray) -> np.ndarray:
        out = z.copy()
        out[0, 0] = np.inf if t % 2 else 0.0
        return out

    path = moving.with_layer("z_depth", spoil).keep(BARE).write(tmp_path / "s.h5")
    check = certify_scene(path).check("depth_valid")
    assert check.verdict == "fail" and "bad_share" in check.reason


def test_every_pair_is_within_known_frames_and_looks_both_ways(tmp_path: Path) -> None:
    clip = bare(make_clip(0, "static", "moving", **SMALL))
    known = np.ones(8, bool)
    known[3] = False
    poses = clip.view.world_from_cam.copy()
    poses[3] = np.nan
    with open_scene(
        clip.with_view(pose_is_known=known, world_from_cam=poses).write(tmp_path / "s.h5")
    ) as scene:
        pairs = choose_pairs(scene, 14, 4, seed=0)
        assert certify_scene(scene).verdict == "pass"
    assert 3 not in {p.source for p in pairs} | {p.target for p in pairs}
    steps = {p.target - p.source for p in pairs}
    assert min(steps) < 0 < max(steps)


def test_memory_is_that_of_a_few_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    get = FrameStore.get

    def counted(self: FrameStore, view: str, index: int) -> object:
        nonlocal most
        out = get(self, view, index)
        most = max(most, len(self._frames))
        return out

    monkeypatch.setattr(FrameStore, "get", counted)
    certify_scene(bare(make_clip(0, "static", "moving", **SMALL)).write(tmp_path / "s.h5"))
    assert 2 <= most <= 6


@pytest.mark.slow
def test_stricter_thresholds_decide_otherwise(moving: Clip, tmp_path: Path) -> None:
    path = moving.write(tmp_path / "s.h5")
    strict = load_thresholds()
    strict.raw["checks"]["intrinsics"]["focal_length"]["any"] = {"warn": 0.01, "fail": 0.02}
    certificate = certify_scene(path, thresholds=strict)
    assert certificate.check("intrinsics").verdict == "fail"
    assert certificate.thresholds_sha256 != certify_scene(path).thresholds_sha256
