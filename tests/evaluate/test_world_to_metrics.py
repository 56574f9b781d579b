"""World -> a benchmark's own files -> reader -> a perfect prediction -> perfect numbers; and worse ones for worse."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.evaluate.benchmarks import ReadOptions, open_benchmark
from datakit.evaluate.predictions import Prediction, write_prediction
from datakit.evaluate.protocols import choose_protocols
from datakit.evaluate.report import summarise
from datakit.evaluate.runner import measure_benchmark
from datakit.worlds import write_world_scene
from tests.evaluate import native

NUM_FRAMES = 6


@pytest.fixture(scope="module")
def world():
    return native.small_world(5, num_frames=NUM_FRAMES)


def truth_of(clip) -> Prediction:
    """What a perfect model would say, from the clip's truth."""
    tracks = clip.tracks
    return Prediction(
        tracks_xyz=None if tracks is None else tracks.xyz_cam,
        tracks_uv=None if tracks is None else tracks.uv,
        visible=None if tracks is None else tracks.visible,
        z_depth=None if clip.z_depth is None else clip.depth_stack(),
        world_from_cam=clip.world_from_cam,
        intrinsics=clip.depth_intrinsics,
    )


def numbers(root, folder, benchmark, protocols=(), change=lambda p: p, **options):
    """Values of the only clip by each protocol."""
    found = open_benchmark(root, options=ReadOptions(**options))
    entry = found.entries[0]
    write_prediction(folder / f"{entry.name}.npz", change(truth_of(entry.load())))
    (result,) = measure_benchmark(
        replace(found, entries=(entry,)), folder, choose_protocols(benchmark, protocols, found.dataset)
    )
    assert result.status == "measured", result.reasons
    return result.values


def test_tapvid3d(world, tmp_path):
    native.write_tapvid3d(tmp_path / "data" / "drivetrack" / "a.npz", world)
    data, pred = tmp_path / "data", tmp_path / "pred"
    for name, values in numbers(data, pred, "tapvid3d", ["all"]).items():
        for metric in ("average_jaccard", "average_pts_within_thresh", "occlusion_accuracy"):
            assert values[metric] == 1.0 or (
                name.startswith("reproduce_2d") and metric != "occlusion_accuracy"
            ), (name, metric)
    # A prediction is known up to scale, but not with `none`.
    doubled = numbers(
        data, pred, "tapvid3d", ["median", "none"], lambda p: replace(p, tracks_xyz=2 * p.tracks_xyz)
    )
    assert doubled["median"]["average_jaccard"] == 1.0 and doubled["none"]["average_jaccard"] < 0.5
    blind = numbers(data, pred, "tapvid3d", change=lambda p: replace(p, visible=~p.visible))
    assert blind["median"]["occlusion_accuracy"] == 0.0


def test_thresholds_know_the_size_of_the_image(world, tmp_path):
    """K is of the original image; one pixel of 256 is more than one of the file's own."""
    data, pred = tmp_path / "data", tmp_path / "pred"
    native.write_tapvid3d(data / "adt" / "a.npz", world)
    clip = open_benchmark(data).entries[0].load()
    focal = np.sqrt(clip.intrinsics[0, 0, 0] * clip.intrinsics[0, 1, 1])
    pixel = clip.tracks.xyz_cam[..., 2:] / (focal * 256 / min(clip.size))

    def off(share):
        return lambda p: replace(p, tracks_xyz=p.tracks_xyz + share * pixel * np.array([1.0, 0, 0]))

    near = numbers(data, pred, "tapvid3d", ["none"], off(0.9))["none"]
    far = numbers(data, pred, "tapvid3d", ["none"], off(1.1))["none"]
    assert near["pts_within_1"] == 1.0 and far["pts_within_1"] == 0.0 and far["pts_within_2"] == 1.0


def test_worldtrack(world, tmp_path):
    native.write_tapvid3d(tmp_path / "data" / "drivetrack" / "a.npz", world)
    data, pred = tmp_path / "data", tmp_path / "pred"
    carried = numbers(data, pred, "worldtrack", ["all"])
    for align in ("global", "per_traj", "sim3", "sim3_closed"):
        assert carried[align]["apd"] == 1.0 and carried[align]["epe"] == pytest.approx(0, abs=1e-6)
    assert carried["d4rt"]["apd3d"] == 1.0 and carried["d4rt"]["l1"] == pytest.approx(0, abs=1e-9)

    def turned(p):
        pose = g.rigid_from(g.rotation_from_axis_angle([0.3, 1.0, 0.2]), [1, 2, 3])
        own = g.invert_rigid(p.world_from_cam[0]) @ p.world_from_cam
        return Prediction(tracks_world=3 * g.transform_points(pose @ own, p.tracks_xyz))

    moved = numbers(data, pred, "worldtrack", ["global", "sim3_closed"], turned)
    assert moved["sim3_closed"]["apd"] == 1.0 and moved["global"]["apd"] < 0.5


def test_world_coordinates_need_poses(world, tmp_path):
    native.write_tapvid3d(tmp_path / "adt" / "a.npz", world, with_poses=False)
    found = open_benchmark(tmp_path)
    write_prediction(tmp_path / "pred" / "adt" / "a.npz", truth_of(found.entries[0].load()))
    (result,) = measure_benchmark(found, tmp_path / "pred", choose_protocols("worldtrack"))
    assert result.status == "no_truth" and "no extrinsics_w2c" in result.reasons["global"]


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_tapvid2d(mode, world, tmp_path):
    native.write_tapvid2d(tmp_path / "davis.pkl", {"a": native.tapvid2d_video(world)})
    options = {"query_mode": mode}
    values = numbers(tmp_path, tmp_path / "pred", "tapvid2d", **options)["tapvid2d"]
    assert values["average_jaccard"] == values["occlusion_accuracy"] == 1.0
    # Two pixels of this image are 8 of 256 across and 10.7 down.
    shifted = numbers(
        tmp_path, tmp_path / "pred", "tapvid2d",
        change=lambda p: replace(p, tracks_uv=p.tracks_uv + np.array([2.0, 0.0])), **options,
    )["tapvid2d"]  # fmt: skip
    assert shifted["pts_within_16"] == 1.0 and shifted["pts_within_4"] == 0.0


def write_all_depth(root, world):
    native.write_sintel(root / "sintel" / "training", world, "alley_2")
    native.write_kitti(root / "kitti", world, "2011_09_26_drive_0002_sync")
    native.write_scannet(root / "scannet", world, "scene0707_00")
    (root / "scenes").mkdir()
    write_world_scene(world, root / "scenes" / "w.h5")


def test_video_depth_of_every_reader(tmp_path):
    write_all_depth(tmp_path, native.small_world(5, num_frames=2, size=(32, 24)))
    for name in ("sintel", "kitti", "scannet", "scenes"):
        # Each by its own programs' protocols; all of them once.
        asked = ["all"] if name == "sintel" else []
        for protocol, values in numbers(tmp_path / name, tmp_path / "pred", "video-depth", asked).items():
            assert values["abs_rel"] == pytest.approx(0, abs=2e-3), (name, protocol)
            assert values["delta1"] == pytest.approx(1, abs=1e-6), (name, protocol)
    # Scale is fitted, but not by `metric`.
    doubled = numbers(
        tmp_path / "sintel", tmp_path / "pred", "video-depth", ["cut3r_scale", "metric"],
        lambda p: replace(p, z_depth=2 * p.z_depth),
    )  # fmt: skip
    assert doubled["cut3r_scale"]["abs_rel"] < 1e-3
    assert doubled["metric"]["abs_rel"] == pytest.approx(1, abs=1e-3)


def test_the_cropped_border_of_scannet_does_not_count(tmp_path):
    world = native.small_world(5, num_frames=2, size=(64, 48))
    native.write_scannet(tmp_path / "data", world, "scene0707_00")

    def spoil(p):
        depth = p.z_depth.copy()
        depth[:, :8], depth[:, -8:], depth[:, :, :11], depth[:, :, -11:] = 50, 50, 50, 50
        return replace(p, z_depth=depth)

    found = numbers(tmp_path / "data", tmp_path / "pred", "video-depth", ["vda", "cut3r_scale"], spoil)
    assert found["vda"]["abs_rel"] < 1e-3 < found["cut3r_scale"]["abs_rel"]


def test_pose_of_every_reader(tmp_path):
    world = native.small_world(5, num_frames=34, size=(16, 12))
    native.write_sintel(tmp_path / "sintel", world, "alley_2")
    native.write_bonn(tmp_path / "bonn", world, "balloon2")
    native.write_tum(tmp_path / "tum", world, "rgbd_dataset_freiburg3_walking_xyz")
    native.write_scannet(tmp_path / "scannet", world, "scene0707_00", lost=7)
    for name in ("sintel", "bonn", "tum", "scannet"):
        values = numbers(tmp_path / name, tmp_path / "pred", "pose")
        assert values["sim3"]["ate"] == pytest.approx(0, abs=1e-6), name
        assert values["sim3"]["rpe_rot"] == pytest.approx(0, abs=1e-4), name
        assert values["auc"]["auc_30"] == pytest.approx(1, abs=1e-6), name

    def moved(p):
        pose = g.rigid_from(g.rotation_from_axis_angle([0.2, -0.4, 1.0]), [3, 1, 2])
        out = pose @ p.world_from_cam
        out[:, :3, 3] *= 5
        return replace(p, world_from_cam=out)

    assert numbers(tmp_path / "bonn", tmp_path / "pred", "pose", ["sim3"], moved)["sim3"]["ate"] < 1e-6
    # Rows of another clock are another path.
    rows = numbers(tmp_path / "bonn", tmp_path / "pred", "pose", ["sim3", "sim3-rows"])
    assert rows["sim3-rows"]["ate"] > 1e-4 > rows["sim3"]["ate"]


def test_points(world, tmp_path):
    native.write_sintel(tmp_path / "data", world, "alley_2")
    data, pred = tmp_path / "data", tmp_path / "pred"
    every = numbers(data, pred, "points", ["all"])
    assert every["mean_shift"]["l1"] == pytest.approx(0, abs=1e-9)
    assert every["cut3r"]["accuracy"] == pytest.approx(0, abs=1e-6) and every["da3"]["fscore"] == 1.0
    assert every["moge"]["rel_point"] == pytest.approx(0, abs=1e-6) and every["moge"]["delta1_point"] == 1.0

    def as_points(p):
        rays = np.stack([g.camera_rays(g.pixel_centres((64, 48)), k) for k in p.intrinsics])
        own = g.invert_rigid(p.world_from_cam[0]) @ p.world_from_cam
        points = g.transform_points(own[:, None, None], rays * p.z_depth[..., None])
        return Prediction(points_world=points + np.array([1.0, -2.0, 3.0]))

    given = numbers(data, pred, "points", change=as_points)["mean_shift"]
    assert given["l1"] == pytest.approx(0, abs=1e-5)  # point maps are float32
    # Another unit is one scale to those that fit one; not so a stretch of each frame by another factor.
    stretch = np.linspace(1, 1.5, NUM_FRAMES, dtype=np.float32)[:, None, None]
    worse = numbers(data, pred, "points", ["all"], lambda p: replace(p, z_depth=stretch * p.z_depth))
    assert (
        worse["mean_shift"]["l1"] > 0.05
        and worse["cut3r"]["accuracy"] > 0.01
        and worse["da3"]["fscore"] < 0.99
    )
    assert worse["moge"]["rel_point"] == pytest.approx(0, abs=1e-5)


def test_a_prediction_without_what_is_needed_says_so(world, tmp_path):
    native.write_sintel(tmp_path / "data", world, "alley_2")
    found = open_benchmark(tmp_path / "data")
    write_prediction(
        tmp_path / "pred" / "sintel" / "alley_2.npz", Prediction(z_depth=np.ones((6, 2, 2), np.float32))
    )
    for benchmark, text in (("pose", "no world_from_cam"), ("points", "points_world, or z_depth")):
        (result,) = measure_benchmark(found, tmp_path / "pred", choose_protocols(benchmark))
        assert result.status == "failed" and all(text in why for why in result.reasons.values())


def test_names_of_protocols():
    with pytest.raises(UsageError, match="did you mean 'median'"):
        choose_protocols("tapvid3d", ["medain"])
    with pytest.raises(UsageError):
        choose_protocols("flow")
    every = choose_protocols("tapvid3d", ["all"])
    assert len(every) == 14 and all(each.settings and each.columns for each in every)
    assert [each.name for each in choose_protocols("tapvid3d")] == ["median", "per_trajectory"]


@pytest.mark.parametrize("benchmark", ["tapvid3d", "tapvid2d", "worldtrack", "video-depth", "pose", "points"])
def test_every_protocol_says_what_its_numbers_depend_on(benchmark, world, tmp_path):
    native.write_sintel(tmp_path, native.small_world(num_frames=1, size=(8, 6)), "alley_2")
    found = open_benchmark(tmp_path)
    protocols = choose_protocols(benchmark, ["all"], found.dataset)
    summary = summarise(found, [], protocols)
    needed = {
        "metric", "alignment", "mask", "max_depth", "resize", "resolution", "uses_true_intrinsics", "num_frames",
        "chunking", "averaging", "code", "clips", "clips_undefined", "clips_missing",
    }  # fmt: skip
    for protocol in protocols:
        settings = summary["protocols"][protocol.name]["settings"]
        assert needed <= set(settings) and settings["metric"] == protocol.name
    depths = {name: each["settings"]["max_depth"] for name, each in summary["protocols"].items()}
    assert benchmark != "video-depth" or (depths["cut3r_scale"], depths["megasam_sintel"]) == (70.0, 100.0)
    json.dumps(summary, allow_nan=False)
