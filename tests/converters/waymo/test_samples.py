"""Native files made by an independent writer, against the numbers of the official package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import lidar, v1, v2
from datakit import geometry as g
from datakit.motion import sweeps
from datakit.scene import write_scene


@pytest.fixture(scope="module")
def folder(samples_dir: Path) -> Path:
    return samples_dir / "waymo"


@pytest.fixture(scope="module")
def official(folder: Path) -> Any:
    with np.load(folder / "official.npz") as numbers:
        yield numbers


def _frames(folder: Path, form: str) -> Any:
    if form == "v1":
        for frame, where, _ in v1.frames(folder / "segment.tfrecord", check_crc=True):
            yield v1.head(frame, where), v1.calibration(frame, where), v1.range_images(frame, where)
        return
    (ref,) = [r for r in waymo.scenes(folder, waymo.Params()) if r.location["form"] == "v2"]
    tables = v2.open_tables(folder, Path(ref.location["path"]), ref.location["context"])
    heads, constant = v2.heads(tables), v2.calibration(tables, ref.id)
    for head, rasters in zip(heads, v2.rasters(tables, [h.timestamp_micros for h in heads]), strict=True):
        yield head, constant, rasters.lasers


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_points_and_projections_are_the_official_ones(form: str, folder: Path, official: Any) -> None:
    compared = 0
    for k, (head, constant, lasers) in enumerate(_frames(folder, form)):
        if f"f{k}_pose" not in official:
            break
        np.testing.assert_allclose(head.global_from_vehicle, official[f"f{k}_pose"], atol=1e-12)
        for laser, (first, second) in lasers.items():
            for number, image in ((1, first), (2, second)):
                want = official[f"f{k}_points_ri{number}_laser{laser}"]
                # The other return is left out, not the first one's poses: both returns need them.
                alone = (image, None) if number == 1 else (_without_points(first), image)
                points = lidar.points_of_frame(
                    {laser: alone}, constant.lasers, head.global_from_vehicle, "sample"
                )
                assert points.points_vehicle.shape == want.shape  # masks are exact
                # The official code works in float32.
                np.testing.assert_allclose(points.points_vehicle, want, atol=0.02 if laser == 1 else 1e-4)
                np.testing.assert_array_equal(points.projection, official[f"f{k}_cp_ri{number}_laser{laser}"])
                compared += len(want)
    assert compared > 250_000


def _without_points(image: Any) -> Any:
    values = image.values.copy()
    values[..., 0] = -1
    return type(image)(values, image.projection, image.pose)


@pytest.mark.slow
def test_both_forms_of_the_sample_give_one_scene(folder: Path, tmp_path: Path) -> None:
    paths = {}
    for ref in waymo.scenes(folder, waymo.Params()):
        form = ref.location["form"]
        paths[form] = tmp_path / f"{form}.h5"
        write_scene(paths[form], waymo.read(folder, ref, waymo.Params()))
    with datakit.open_scene(paths["v1"]) as one, datakit.open_scene(paths["v2"]) as two:
        np.testing.assert_array_equal(one.motion.world_from_instance, two.motion.world_from_instance)
        for name, view in one.views.items():
            for t in range(view.num_frames):
                np.testing.assert_array_equal(view.z_depth(t), two.views[name].z_depth(t))


@pytest.mark.slow
def test_depth_is_the_official_depth_at_the_shipped_pixels(
    folder: Path, official: Any, tmp_path: Path
) -> None:
    """Depth is that of the nearest point whose shipped projection is the pixel, up to the readout."""
    (ref,) = [r for r in waymo.scenes(folder, waymo.Params()) if r.location["form"] == "v1"]
    write_scene(tmp_path / "s.h5", waymo.read(folder, ref, waymo.Params(drop_shadowed=False)))
    numbers = {"front": 1, "front_left": 2, "front_right": 3, "side_left": 4, "side_right": 5}
    pixels = np.concatenate([official[f"f0_cp_ri1_laser{laser}"] for laser in range(1, 6)])
    with datakit.open_scene(tmp_path / "s.h5") as scene:
        for name, number in numbers.items():
            view = scene.views[name]
            z, ids = view.z_depth(0), view.instances(0)
            # Columns: u, v, forward depth at the point's own readout time, valid.
            truth = official[f"f0_uvdepthok_rolling_cam{number}"]
            nearest = np.full(z.shape, np.inf)
            for slot in (0, 3):
                mine = (pixels[:, slot] == number) & (truth[:, 3] > 0)
                np.minimum.at(nearest, (pixels[mine, slot + 2], pixels[mine, slot + 1]), truth[mine, 2])
            both = np.isfinite(nearest) & np.isfinite(z) & (ids == 0)
            assert both.sum() > 8000
            # At 10 m/s the camera moves by 0.23 m from the middle of its readout to the end.
            gap = np.abs(z - nearest)[both]
            assert np.median(gap) < 0.15 and np.quantile(gap, 0.99) < 0.45, name


@pytest.mark.slow
def test_points_are_projected_where_the_official_rolling_shutter_sees_them(
    folder: Path, official: Any, tmp_path: Path
) -> None:
    (ref,) = [r for r in waymo.scenes(folder, waymo.Params()) if r.location["form"] == "v1"]
    write_scene(tmp_path / "s.h5", waymo.read(folder, ref, waymo.Params()))
    points = np.concatenate([official[f"f0_points_ri1_laser{laser}"] for laser in range(1, 6)])
    gaps, plain = [], []
    with datakit.open_scene(tmp_path / "s.h5") as scene:
        pose = official["f0_pose"].reshape(4, 4).copy()
        pose[:3, 3] -= np.asarray(scene.metadata["origin_global"])
        world = g.transform_points(pose, points)
        for number, name in enumerate(("front", "front_left", "front_right", "side_left", "side_right"), 1):
            view, truth = scene.views[name], official[f"f0_uvdepthok_rolling_cam{number}"]
            cam = g.transform_points(g.invert_rigid(view.world_from_cam[0]), world)
            inside = (truth[:, 3] > 0) & ((truth[:, :2] >= 0) & (truth[:, :2] <= view.size)).all(axis=1)
            for project, into in ((sweeps.project_into, gaps), (sweeps.project_at_once, plain)):
                into.append(np.linalg.norm(project(view, 0, cam)[0] - truth[:, :2], axis=1)[inside])
    assert min(map(len, gaps)) > 5000
    assert np.quantile(np.concatenate(gaps), 0.99) < 0.2 and np.concatenate(gaps).max() < 0.6
    assert np.median(np.concatenate(plain)) > 1.0
