from __future__ import annotations

import pickle
import struct
import zipfile

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import FormatError, LayoutError, UsageError
from datakit.evaluate.benchmarks import ReadOptions, evaluation_lists, open_benchmark, read_list
from datakit.evaluate.benchmarks.files import associate, nearest
from datakit.evaluate.benchmarks.pickles import read_pickle
from datakit.evaluate.benchmarks.sintel import parse_cam, parse_dpt
from datakit.worlds import write_world_scene
from tests.evaluate import native


def one(root, dataset="auto", **options):
    (entry,) = open_benchmark(root, dataset, ReadOptions(**options)).entries
    return entry.load()


@pytest.fixture(scope="module")
def world():
    return native.small_world()


def agrees_with_depth(clip, t=0):
    """Share of tracks' visible points that lie where the clip's own depth and K say: one pixel origin for both."""
    height, width = clip.z_depth(t).shape
    rays = g.camera_rays(g.pixel_centres((width, height)), clip.depth_intrinsics[t])
    return rays * clip.z_depth(t)[..., None]


def test_sintel(world, tmp_path):
    native.write_sintel(tmp_path / "training", world, "alley_2")
    native.write_sintel(tmp_path / "training", world, "alley_1")  # not of the 14
    found = open_benchmark(tmp_path)
    assert found.dataset == "sintel" and [e.name for e in found.entries] == ["sintel/alley_2"]
    assert len(found.missing) == 13 and "sintel/temple_3" in found.missing
    assert len(open_benchmark(tmp_path, options=ReadOptions(clip_list="23")).entries) == 2
    clip, view = found.entries[0].load(), world.views["camera"]
    np.testing.assert_allclose(clip.world_from_cam, view.world_from_cam, atol=1e-12)
    np.testing.assert_array_equal(clip.intrinsics, view.intrinsics)
    frame = world.render(2)
    np.testing.assert_array_equal(clip.rgb(2), frame.rgb)
    np.testing.assert_array_equal(clip.z_depth(2), frame.z_depth.astype(np.float32))
    # The surface that depth, K and pose put into the world is the one that a ray through a pixel's centre meets.
    points = g.transform_points(clip.world_from_cam[2], agrees_with_depth(clip, 2))
    hits = world.cast_pixels("camera", [[10.5, 20.5]], 2 / world.fps)
    np.testing.assert_allclose(points[20, 10], hits.points_world[0], atol=1e-5)


def test_sintel_lists():
    lists = evaluation_lists()["sintel"]
    assert {name: len(names) for name, names in lists.items()} == {"14": 14, "18": 18, "23": 23}
    assert set(lists["14"]) < set(lists["18"]) < set(lists["23"])
    assert len(evaluation_lists()["kitti"]["val"]) == 13 and len(evaluation_lists()["bonn"]["monst3r"]) == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: b"PIEX" + d[4:],
        lambda d: d[:4] + struct.pack("<ii", 1 << 30, 1 << 30) + d[12:],
        lambda d: d[:4] + struct.pack("<ii", -4, -3) + d[12:],
        lambda d: d[:7],
    ],
)
def test_damaged_dpt(damage):
    good = native.dpt(np.ones((3, 4)))
    assert parse_dpt(good, "x").shape == (3, 4)
    with pytest.raises(FormatError):
        parse_dpt(damage(good), "x")


def test_dpt_without_depth_is_unknown():
    depth = parse_dpt(native.dpt(np.array([[0.0, 2.0], [-1.0, np.inf]])), "x")
    assert np.isnan(depth[0, 0]) and depth[0, 1] == 2 and np.isnan(depth[1, 0])


def test_cam_is_world_to_camera():
    pose = g.look_at([1, 2, 3], [0, 0, 0], [0, 0, 1])
    matrix, found = parse_cam(native.cam(np.diag([5.0, 6.0, 1.0]), pose), "x")
    np.testing.assert_allclose(found, pose, atol=1e-12)
    assert matrix[1, 1] == 6
    mirrored = native.cam(np.diag([5.0, 6.0, 1.0]), pose)[:-96] + np.ones(12).astype("<f8").tobytes()
    for bad in (mirrored, native.cam(np.eye(3), pose)[:-8]):
        with pytest.raises(FormatError):
            parse_cam(bad, "x")


def test_kitti(world, tmp_path):
    native.write_kitti(tmp_path, world, "2011_09_26_drive_0002_sync")
    clip = one(tmp_path)
    assert clip.name == "kitti/2011_09_26_drive_0002_sync" and clip.frame_names[0] == "0000000005"
    np.testing.assert_allclose(clip.z_depth(1), world.render(1).z_depth, atol=0.5 / 256)
    np.testing.assert_array_equal(clip.rgb(1), world.render(1).rgb)
    assert open_benchmark(tmp_path, options=ReadOptions(clip_list="val")).missing


def test_kitti_zero_is_unknown_and_8_bits_are_refused(tmp_path):
    folder = tmp_path / "groundtruth_depth_gathered" / "a_02"
    depth = np.ones((4, 4))
    depth[0, 0] = np.nan
    native.png16(folder / "0000000005.png", depth, 256.0)
    clip = one(tmp_path)
    assert np.isnan(clip.z_depth(0)[0, 0]) and clip.rgb is None
    (folder / "0000000005.png").write_bytes(native.encode_png(np.ones((4, 4), np.uint8)))
    with pytest.raises(FormatError, match="16 bits"):
        one(tmp_path)


def test_kitti_takes_110_frames_in_order(tmp_path):
    for number in range(8, 130):
        native.png16(
            tmp_path / "groundtruth_depth_gathered" / "a_02" / f"{number}.png", np.ones((2, 2)), 256.0
        )
    clip = one(tmp_path)
    assert clip.num_frames == 110 and clip.frame_names[:3] == ("8", "9", "10")


@pytest.fixture(scope="module")
def bonn(tmp_path_factory):
    root, world = tmp_path_factory.mktemp("bonn"), native.small_world(num_frames=34, size=(16, 12))
    native.write_bonn(root, world, "balloon2")
    return root, world


def test_bonn_pairs_poses_by_time_not_by_row(bonn):
    root, world = bonn
    clip = one(root)
    assert clip.num_frames == 4 and clip.name == "bonn/balloon2"
    truth, _ = world.camera_at("camera", world.times[30:])
    times = np.round(world.times[30:] * 100) / 100  # the pose's clock ticks each 10 ms
    nearest_tick, _ = world.camera_at("camera", times)
    np.testing.assert_allclose(clip.world_from_cam, nearest_tick, atol=1e-3)
    # What MonST3R's preparation pairs with the same frames: rows 30 to 33, long before.
    rows, _ = world.camera_at("camera", -0.5 + np.arange(30, 34) / 100)
    np.testing.assert_allclose(clip.official_world_from_cam, rows, atol=1e-9)
    assert np.abs(clip.official_world_from_cam - truth)[:, :3, 3].max() > 0.05
    np.testing.assert_allclose(
        clip.z_depth(0), native.known_again(world.render(30).z_depth, 5000), atol=1.1e-4
    )
    np.testing.assert_array_equal(clip.rgb(3), world.render(33).rgb)


def test_published_calibrations_count_from_pixel_centres(bonn):
    # A column's centre c sees along (c - cx) / fx in the published model; ours sees the same along c + 0.5.
    root, _ = bonn
    k = one(root).intrinsics[0]
    ray = g.camera_rays([[100.5, 200.5]], k)[0]
    np.testing.assert_allclose(ray, [(100 - 315.593520) / 542.822841, (200 - 237.756098) / 542.576870, 1])


def test_bonn_without_a_pose_near_is_unknown(bonn, tmp_path):
    root, world = bonn
    folder = native.write_bonn(tmp_path, world, "balloon2", early_s=0.5)
    path = folder / "groundtruth.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-10]) + "\n")
    clip = one(tmp_path)
    known = np.isfinite(clip.world_from_cam).all(axis=(1, 2))
    assert known[0] and not known[-1]
    for damage in ("", "1 2 3\n", "a b c d e f g h\n"):
        path.write_text(damage)
        with pytest.raises(FormatError):
            one(tmp_path)


def test_bonn_list_and_missing(bonn):
    assert len(open_benchmark(bonn[0]).missing) == 4
    with pytest.raises(UsageError):
        open_benchmark(bonn[0], options=ReadOptions(clip_list="depthcrafter"))


def test_tum(tmp_path):
    world = native.small_world(num_frames=8, size=(16, 12), fps=25.0)
    folder = native.write_tum(tmp_path, world, "rgbd_dataset_freiburg3_walking_xyz")
    clip = one(tmp_path)
    assert clip.num_frames == 3  # every third pair
    np.testing.assert_allclose(clip.world_from_cam, world.views["camera"].world_from_cam[::3], atol=1e-9)
    np.testing.assert_allclose(
        clip.z_depth(1), native.known_again(world.render(3).z_depth, 5000), atol=1.1e-4
    )
    np.testing.assert_allclose(clip.intrinsics[0][:2, 2], [320.6, 248.1])
    assert one(folder).name == clip.name  # the sequence itself
    (folder / "link.png").symlink_to("/etc/hostname")
    for place in ("../../secret.png", "/etc/hostname", "link.png"):
        (folder / "rgb.txt").write_text(f"100.0 {place}\n")
        with pytest.raises(LayoutError, match="leaves"):
            one(tmp_path)


def test_clocks():
    assert nearest(np.array([0.0, 1.0, 5.0]), np.array([1.01, 0.0, 2.0]), 0.02).tolist() == [1, 0, -1]
    # One to one, the closest first: 0.011 takes 0.01, so 0.0 must do with what is left.
    assert associate(np.array([0.0, 0.011]), np.array([0.01, 0.019]), 0.02) == [(0, 1), (1, 0)]
    assert associate(np.array([0.0]), np.array([0.02]), 0.02) == []


def test_scannet(world, tmp_path):
    folder = native.write_scannet(tmp_path, world, "scene0707_00", lost=3)
    clip, view = one(tmp_path), world.views["camera"]
    known = [0, 1, 2, 4]
    np.testing.assert_allclose(clip.world_from_cam[known], view.world_from_cam[known])
    assert np.isnan(clip.world_from_cam[3]).all()
    np.testing.assert_allclose(clip.intrinsics[0], view.intrinsics[0])
    np.testing.assert_allclose(clip.z_depth(2), world.render(2).z_depth, atol=0.5 / 1000 + 1e-6)
    rows = (folder / "pose_90.txt").read_text().splitlines()
    for bad in (rows[:2], [*rows[:-1], "1 2 3"], [" ".join(["2"] * 16)] * 5):
        (folder / "pose_90.txt").write_text("\n".join(bad) + "\n")
        with pytest.raises(FormatError):
            one(tmp_path)


def test_scannet_as_exported_takes_every_third_of_270(tmp_path):
    folder = tmp_path / "scene0710_00"
    tiny = native.jpeg(np.zeros((2, 2, 3), np.uint8))
    for kind in ("color", "pose"):
        (folder / kind).mkdir(parents=True)
    for t in range(280):
        (folder / "color" / f"{t}.jpg").write_bytes(tiny)
        (folder / "pose" / f"{t}.txt").write_text(f"1 0 0 {t}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    clip = one(tmp_path)
    assert clip.num_frames == 90 and clip.frame_names[-1] == "267"
    np.testing.assert_array_equal(clip.world_from_cam[:, 0, 3], np.arange(0, 270, 3))


# --- TAPVid-3D


def test_tapvid3d(world, tmp_path):
    native.write_tapvid3d(tmp_path / "drivetrack" / "a.npz", world)
    native.write_tapvid3d(tmp_path / "adt" / "b.npz", world, with_poses=False)
    native.write_tapvid3d(tmp_path / "pstudio" / "c.npz", world, with_poses=False)
    found = open_benchmark(tmp_path)
    clips = {entry.name: entry.load() for entry in found.entries}
    assert list(clips) == ["adt/b", "drivetrack/a", "pstudio/c"] and found.dataset == "tapvid3d"
    clip = clips["drivetrack/a"]
    queries, xyz, pixels, visible = native.world_tracks(world)
    np.testing.assert_array_equal(clip.tracks.xyz_cam, xyz)
    np.testing.assert_array_equal(clip.tracks.visible, visible)
    np.testing.assert_allclose(clip.world_from_cam, world.views["camera"].world_from_cam, atol=1e-9)
    assert clip.size == (64, 48) and clip.rgb(1).shape == (48, 64, 3)
    # Queries are the points projected by the file's own K: one pixel origin for both.
    src = clip.tracks.query_xyt[:, 2].astype(int)
    own = clip.tracks.xyz_cam[np.arange(len(src)), src]
    uv, _ = g.project_points(own, clip.intrinsics[0])
    np.testing.assert_allclose(uv, clip.tracks.query_xyt[:, :2], atol=1e-6)
    assert clips["adt/b"].world_from_cam is None and clips["adt/b"].notes
    np.testing.assert_array_equal(clips["pstudio/c"].world_from_cam[3], np.eye(4))


def test_tapvid3d_reads_the_documented_names_too(world, tmp_path):
    path = tmp_path / "adt" / "a.npz"
    native.write_tapvid3d(path, world)
    with np.load(path, allow_pickle=True) as file:
        arrays = dict(file)
    renamed = {"tracks_XYZ": "tracks_xyz", "visibility": "visible", "fx_fy_cx_cy": "intrinsics"}
    np.savez(
        tmp_path / "adt" / "b.npz", allow_pickle=True, **{renamed.get(n, n): v for n, v in arrays.items()}
    )
    a, b = (entry.load() for entry in open_benchmark(tmp_path).entries)
    np.testing.assert_array_equal(a.tracks.xyz_cam, b.tracks.xyz_cam)


def test_tapvid3d_takes_fixed_size_byte_strings(world, tmp_path):
    images = np.array([native.jpeg(world.render(t).rgb) for t in range(world.num_frames)], "S")
    native.write_tapvid3d(tmp_path / "adt" / "a.npz", world, images_jpeg_bytes=images)
    assert one(tmp_path).rgb(4).shape == (48, 64, 3)


class Evil:
    def __reduce__(self):
        return (open, ("/nonexistent/evil", "w"))


def objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize(
    "changes",
    [
        {"images_jpeg_bytes": objects(Evil(), Evil())},
        {"images_jpeg_bytes": objects(b"x", "text", b"x", b"x", b"x")},
        {"images_jpeg_bytes": objects(b"only one")},
        {"tracks_XYZ": np.zeros((5, 24))},
        {"tracks_XYZ": np.zeros((4, 24, 3))},
        {"tracks_XYZ": objects(1, 2)},
        {"visibility": np.zeros((24, 5), bool)},
        {"fx_fy_cx_cy": np.zeros(3)},
        {"fx_fy_cx_cy": None},
        {"queries_xyt": np.full((24, 3), 9.0)},
        {"queries_xyt": np.full((24, 3), np.nan)},
        {"extrinsics_w2c": np.zeros((5, 4, 4))},
    ],
)
def test_wrong_tapvid3d(changes, world, tmp_path):
    native.write_tapvid3d(tmp_path / "adt" / "a.npz", world, **changes)
    with pytest.raises(FormatError):
        one(tmp_path)


def test_damaged_npz(world, tmp_path):
    path = tmp_path / "adt" / "a.npz"
    native.write_tapvid3d(path, world)
    good = path.read_bytes()
    middle = good.index(b"tracks_XYZ.npy") + 300
    for bad in (good[: len(good) // 2], b"", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        path.write_bytes(bad)
        with pytest.raises(FormatError):
            one(tmp_path)


def test_an_npz_that_claims_more_than_it_holds(world, tmp_path):
    path = tmp_path / "adt" / "a.npz"
    native.write_tapvid3d(path, world)
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }"
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["tracks_XYZ.npy"] = header + text.ljust(117) + b"\n" + bytes(24)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(FormatError, match="tracks_XYZ"):
        one(tmp_path)


def test_names_choose_clips_and_count_the_missing(world, tmp_path):
    for source in ("adt", "pstudio"):
        native.write_tapvid3d(tmp_path / source / "a.npz", world)
    found = open_benchmark(tmp_path, options=ReadOptions(names=("pstudio/a.npz", "adt/gone.npz")))
    assert [e.name for e in found.entries] == ["pstudio/a"] and found.missing == ("adt/gone",)


def test_lists(tmp_path):
    text = tmp_path / "list.txt"
    text.write_text("# minival\nadt/a.npz\n\nb.npz # why\n")
    assert read_list(text) == ("adt/a.npz", "b.npz")
    code = tmp_path / "tapvid3d_splits.py"
    code.write_text('import os\nMINIVAL_FILES = {"adt": ["a.npz"], "pstudio": ["b.npz"]}\nos.abort()\n')
    assert read_list(code, "minival") == ("adt/a.npz", "pstudio/b.npz")
    with pytest.raises(UsageError):
        read_list(code, "full_eval")
    code.write_text('MINIVAL_FILES = {"adt": [open("x")]}\n')
    for path, split in ((code, "minival"), (tmp_path / "empty.txt", None)):
        path.touch()
        with pytest.raises(FormatError):
            read_list(path, split)
    with pytest.raises(LayoutError):
        read_list(tmp_path / "nothing")


# --- TAP-Vid 2D


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("as_jpeg", [False, True])
def test_tapvid2d(protocol, as_jpeg, world, tmp_path):
    video = native.tapvid2d_video(world, as_jpeg)
    native.write_tapvid2d(tmp_path / "tapvid_davis.pkl", {"dogs": video}, protocol)
    clip = one(tmp_path / "tapvid_davis.pkl")
    _, _, pixels, visible = native.world_tracks(world)
    assert clip.name == "tapvid_davis/dogs" and clip.size == (64, 48)
    np.testing.assert_allclose(clip.tracks.uv, pixels, atol=1e-4)
    np.testing.assert_array_equal(clip.tracks.visible, visible)
    # `first` asks where a track is seen first.
    first = visible.argmax(axis=1)
    np.testing.assert_array_equal(clip.tracks.query_xyt[:, 2], first)
    np.testing.assert_allclose(clip.tracks.query_xyt[:, :2], pixels[np.arange(len(first)), first], atol=1e-4)
    assert clip.rgb(1).shape == (48, 64, 3)


def test_tapvid2d_strided_and_lists_of_videos(tmp_path):
    world = native.small_world(num_frames=7)
    video = native.tapvid2d_video(world)
    video["occluded"][0] = True
    native.write_tapvid2d(tmp_path / "kinetics.pkl", [video])
    clip = one(tmp_path, query_mode="strided")
    visible = ~video["occluded"]
    assert clip.name == "kinetics/0000"
    assert len(clip.tracks.query_xyt) == visible[:, 0].sum() + visible[:, 5].sum()
    assert set(clip.tracks.query_xyt[:, 2]) == {0, 5}
    never = one(tmp_path)
    assert len(never.tracks.query_xyt) == visible.any(axis=1).sum() < len(visible)
    with pytest.raises(UsageError):
        one(tmp_path, query_mode="last")


def test_pickles_are_never_run(tmp_path):
    for evil in (Evil(), {"a": Evil()}, np.array([Evil()], object), print, Evil):
        with pytest.raises(FormatError):
            read_pickle(pickle.dumps(evil), "x")
    # What would call something, written by hand.
    for code in (
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    ):
        with pytest.raises(FormatError):
            read_pickle(code, "x")


def test_damaged_pickles():
    good = pickle.dumps({"a": np.arange(6.0).reshape(2, 3), "b": [b"x", ("y", 1, None, True, 2.5)]})
    found = read_pickle(good, "x")
    np.testing.assert_array_equal(found["a"], np.arange(6.0).reshape(2, 3))
    assert found["b"] == [b"x", ("y", 1, None, True, 2.5)]
    fortran = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
    for protocol in range(6):
        np.testing.assert_array_equal(read_pickle(pickle.dumps(fortran, protocol), "x"), fortran)
    for cut in range(0, len(good) - 1, 7):
        with pytest.raises(FormatError):
            read_pickle(good[:cut], "x")
    itself: list = []
    itself.append(itself)
    with pytest.raises(FormatError, match="itself"):
        read_pickle(pickle.dumps(itself), "x")
    with pytest.raises(FormatError, match="fields"):
        read_pickle(pickle.dumps(np.zeros(2, [("a", "f4")])), "x")


def test_a_pickle_that_grows_without_end_is_read_once():
    value: list = ["x"]
    for _ in range(60):
        value = [value, value]
    found = read_pickle(pickle.dumps(value), "x")
    for _ in range(60):
        found = found[1]
    assert found == ["x"]


@pytest.mark.parametrize(
    "change", [{"points": None}, {"occluded": np.zeros((2, 2))}, {"video": np.zeros((5, 2, 2))}]
)
def test_wrong_tapvid2d(change, world, tmp_path):
    video = native.tapvid2d_video(world) | change
    native.write_tapvid2d(tmp_path / "a.pkl", {"v": {k: v for k, v in video.items() if v is not None}})
    with pytest.raises(FormatError):
        one(tmp_path)


# --- our own scenes


def test_scenes(world, tmp_path):
    write_world_scene(world, tmp_path / "w.h5")
    clip, view = one(tmp_path, max_tracks=16), world.views["camera"]
    assert clip.source == "world" and len(clip.tracks.query_xyt) == 16
    np.testing.assert_array_equal(clip.world_from_cam, view.world_from_cam)
    for track in range(4):
        uv = clip.tracks.query_xyt[track, :2]
        points, state = world.track("camera", np.tile(uv, (5, 1)), np.zeros(5, int), np.arange(5))
        xyz = g.transform_points(g.invert_rigid(view.world_from_cam), points)
        np.testing.assert_allclose(clip.tracks.xyz_cam[track], xyz, atol=1e-4)


def test_what_is_nothing(tmp_path):
    for bad in (tmp_path, tmp_path / "gone"):
        with pytest.raises(LayoutError):
            open_benchmark(bad)
    with pytest.raises(UsageError):
        open_benchmark(tmp_path, "nuscenes")
    for dataset in ("sintel", "kitti", "bonn", "tum", "scannet", "tapvid3d", "tapvid2d", "scenes"):
        with pytest.raises(LayoutError):
            open_benchmark(tmp_path, dataset)
