"""Photos without an order: pairs with parallax, chosen by what both show and not only by that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit import geometry as g
from datakit.certify import certify_scene, sampling
from datakit.certify import knobs as k
from datakit.certify.sampling import choose_pairs
from datakit.covisibility import measure_covisibility
from datakit.scene import open_scene

from .faults import Clip, bare, half_pixel_k_of_some, make_clip

PHOTOS = 24


def photo_set(clip: Clip) -> Clip:
    return replace(clip, record=replace(clip.record, time_kind="set"))


@pytest.fixture(scope="module")
def photos() -> Clip:
    """Photos so close to each other that two neighbours have hardly any parallax."""
    return photo_set(bare(make_clip(0, "static", "moving", num_frames=PHOTOS, size=(80, 64))))


def test_wide_pairs_show_the_same_things_from_farther_away(photos: Clip, tmp_path: Path) -> None:
    with open_scene(photos.write(tmp_path / "s.h5")) as scene:
        wide = sampling._wide_pairs(scene, "camera", 9, seed=0)
        near = sampling._near_pairs("camera", scene.views["camera"], np.arange(PHOTOS), 9)
        overlap = measure_covisibility(scene).overlap
        pairs = choose_pairs(scene, 14, 4, seed=0)
        again = choose_pairs(scene, 14, 4, seed=0)
    centres = photos.view.world_from_cam[:, :3, 3]

    def apart(chosen: list[sampling.FramePair]) -> float:
        return float(np.median([np.linalg.norm(centres[p.source] - centres[p.target]) for p in chosen]))

    assert len(wide) == 9 and apart(wide) > 4 * apart(near)
    assert all(min(overlap[p.source, p.target], overlap[p.target, p.source]) > 0.65 for p in wide)
    # Both kinds are there: pairs that only geometry chose would be the ones in which wrong geometry agrees.
    assert set(pairs) > set(wide) and set(pairs) & set(near) and pairs == again
    assert 10 <= len(pairs) <= 14


def test_wide_pairs_must_show_mostly_the_same(
    photos: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stricter overlap the pairs are closer, and of one that nothing has there are none."""
    found = {}
    with open_scene(photos.write(tmp_path / "s.h5")) as scene:
        overlap = measure_covisibility(scene).overlap
        for least in (0.75, 0.93, 1.01):
            monkeypatch.setattr(sampling, "_LEAST_OVERLAP", least)
            found[least] = sampling._wide_pairs(scene, "camera", 9, seed=0)
    assert found[1.01] == [] and found[0.93] != found[0.75]
    assert min(min(overlap[p.source, p.target], overlap[p.target, p.source]) for p in found[0.93]) > 0.85


def test_close_photos_are_testable(photos: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photos.write(tmp_path / "s.h5")
    certificate = certify_scene(path)
    check = certificate.check("depth_reprojection")
    assert (certificate.verdict, check.verdict) == ("pass", "pass")
    assert {k.SCALE, k.RAY, k.INVERTED, k.TRANSPOSED} <= set(check.can_see)
    monkeypatch.setattr(sampling, "_wide_pairs", lambda *_: [])
    blind = certify_scene(path).check("depth_reprojection")
    assert set(blind.can_see) < set(check.can_see)
    assert k.HALF_PIXEL in check.can_see and k.HALF_PIXEL not in blind.can_see


def along_ray(clip: Clip, z: np.ndarray) -> np.ndarray:
    rays = g.camera_rays(g.pixel_centres(clip.view.size), clip.view.intrinsics[0])
    return (z * np.linalg.norm(rays, axis=-1)).astype(np.float32)


FAULTS = {
    "depth 6 % too large": lambda c: c.with_layer("z_depth", lambda t, z: z * np.float32(1.06)),
    "inverted poses": lambda c: c.with_view(world_from_cam=np.linalg.inv(c.view.world_from_cam)),
    "depth along the ray": lambda c: c.with_layer("z_depth", lambda t, z: along_ray(c, z)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_geometry_cannot_choose_the_pairs_that_hide_it(
    photos: Clip, fault: str, tmp_path: Path
) -> None:
    wrong = FAULTS[fault](photos)
    assert certify_scene(wrong.write(tmp_path / "s.h5")).check("depth_reprojection").verdict == "fail"


def test_a_shift_of_every_second_photo_shows_in_single_pairs(photos: Clip, tmp_path: Path) -> None:
    """Its mean over pairs is nothing, so that no bias shows."""
    wrong = half_pixel_k_of_some(photos)
    check = certify_scene(wrong.write(tmp_path / "s.h5")).check("photometric")
    found = {measure.name: measure for measure in check.measures}
    assert check.verdict == "fail" and found["drift_pairs"].verdict == "fail"
    assert {found[name].verdict for name in ("drift_u", "drift_v")} == {"pass"}
    clean = certify_scene(photos.write(tmp_path / "s.h5")).check("photometric")
    assert clean.verdict == "pass" and k.HALF_PIXEL_SOME in clean.can_see


def test_few_photos_and_photos_without_depth(photos: Clip, tmp_path: Path) -> None:
    assert sampling._ranks(0).tolist() == [] and sampling._ranks(1).tolist() == [0]
    assert sampling._ranks(500)[[0, -1]].tolist() == [0, sampling._LAST_PARTNER - 1]
    alone = np.zeros(PHOTOS, bool)
    alone[5] = True
    poses = np.where(alone[:, None, None], photos.view.world_from_cam, np.nan)
    single = photos.with_view(pose_is_known=alone, world_from_cam=poses)
    empty = photos.with_layer("z_depth", lambda t, z: np.full_like(z, np.nan))
    for number, clip in enumerate((single, empty)):
        with open_scene(clip.write(tmp_path / f"{number}.h5")) as scene:
            assert sampling._wide_pairs(scene, "camera", 9, seed=0) == []
            assert certify_scene(scene).check("depth_reprojection").verdict == "not_testable"
