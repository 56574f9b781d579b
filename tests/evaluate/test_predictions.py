from __future__ import annotations

import numpy as np
import pytest

from datakit import geometry as g
from datakit.errors import FormatError
from datakit.evaluate.benchmarks import open_benchmark
from datakit.evaluate.predictions import Prediction, find_prediction, read_prediction, write_prediction
from datakit.worlds import write_world_scene
from tests.evaluate import native

ALL = {
    "tracks_xyz",
    "tracks_world",
    "tracks_uv",
    "visible",
    "z_depth",
    "world_from_cam",
    "intrinsics",
    "points_world",
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("truth")
    native.write_tapvid3d(root / "adt" / "a.npz", native.small_world())
    return open_benchmark(root).entries[0].load()


@pytest.fixture(scope="module")
def square_clip(tmp_path_factory):
    """As many tracks as frames."""
    root, world = tmp_path_factory.mktemp("square"), native.small_world()
    queries, xyz, _, visible = (each[:5] for each in native.world_tracks(world))
    changes = {"queries_xyt": queries, "tracks_XYZ": xyz.transpose(1, 0, 2), "visibility": visible.T}
    native.write_tapvid3d(root / "adt" / "a.npz", world, **changes)
    return open_benchmark(root).entries[0].load()


def test_what_is_written_is_read(clip, tmp_path):
    rng = np.random.default_rng(0)
    given = Prediction(
        tracks_xyz=clip.tracks.xyz_cam,
        tracks_uv=rng.random((24, 5, 2)),
        visible=clip.tracks.visible,
        z_depth=rng.random((5, 6, 8), np.float32),
        world_from_cam=clip.world_from_cam,
        points_world=rng.random((5, 6, 8, 3), np.float32),
    )
    path = tmp_path / "adt" / "a.npz"
    write_prediction(path, given)
    first = path.read_bytes()
    write_prediction(path, given)
    assert path.read_bytes() == first
    found = read_prediction(path, clip, ALL)
    for name in ("tracks_xyz", "tracks_uv", "visible", "z_depth", "world_from_cam", "points_world"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert found.tracks_world is None and found.intrinsics is None
    assert read_prediction(path, clip, {"z_depth"}).tracks_xyz is None


def test_the_official_result_files_are_read(clip, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, tracks_XYZ=clip.tracks.xyz_cam.transpose(1, 0, 2), visibility=clip.tracks.visible.T)
    found = read_prediction(path, clip, ALL)
    np.testing.assert_array_equal(found.tracks_xyz, clip.tracks.xyz_cam)
    np.testing.assert_array_equal(found.visible, clip.tracks.visible)


def test_the_order_is_told_by_the_shape_or_by_axes_and_never_guessed(clip, square_clip, tmp_path):
    path, xyz = tmp_path / "a.npz", clip.tracks.xyz_cam
    np.savez(path, tracks_xyz=xyz.transpose(1, 0, 2))
    np.testing.assert_array_equal(read_prediction(path, clip, ALL).tracks_xyz, xyz)
    square = square_clip.tracks.xyz_cam
    np.savez(path, tracks_xyz=square)
    with pytest.raises(FormatError, match="axes"):
        read_prediction(path, square_clip, ALL)
    for axes, stored in (("nt", square), ("tn", square.transpose(1, 0, 2))):
        np.savez(path, tracks_xyz=stored, axes=axes)
        np.testing.assert_array_equal(read_prediction(path, square_clip, ALL).tracks_xyz, square)
    np.savez(path, tracks_XYZ=square.transpose(1, 0, 2))  # the official program knows but one order
    np.testing.assert_array_equal(read_prediction(path, square_clip, ALL).tracks_xyz, square)
    np.savez(path, tracks_xyz=xyz, axes="tn")
    with pytest.raises(FormatError):
        read_prediction(path, clip, ALL)


@pytest.mark.parametrize(
    "arrays",
    [
        {"tracks_xyz": np.zeros((23, 5, 3))},
        {"tracks_xyz": np.zeros((24, 5))},
        {"tracks_xyz": np.zeros((24, 5, 3), "S1")},
        {"z_depth": np.zeros((4, 6, 8))},
        {"z_depth": np.zeros((5, 6))},
        {"z_depth": np.zeros((5, 0, 8))},
        {"world_from_cam": np.zeros((5, 3, 4))},
        {"intrinsics": np.zeros((4, 4))},
        {"points_world": np.zeros((5, 6, 8))},
    ],
)
def test_what_does_not_fit_is_refused(arrays, clip, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(FormatError):
        read_prediction(path, clip, ALL)


def test_damaged_predictions(clip, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, tracks_xyz=clip.tracks.xyz_cam)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError):
        read_prediction(path, clip, ALL)


def test_one_k_stands_for_all_frames(clip, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, intrinsics=np.diag([5, 5, 1]))
    assert read_prediction(path, clip, ALL).intrinsics.shape == (5, 3, 3)


def test_finding(tmp_path):
    for place in ("adt/a.npz", "b.npz", "adt/c.h5"):
        path = tmp_path / "pred" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "secret.npz").touch()
    folder = tmp_path / "pred"
    found = {
        name: find_prediction(folder, name) for name in ("adt/a", "adt/b", "adt/c", "adt/d", "../secret")
    }
    assert found["adt/a"] == folder / "adt" / "a.npz" and found["adt/b"] == folder / "b.npz"
    assert found["adt/c"] == folder / "adt" / "c.h5" and found["adt/d"] is None and found["../secret"] is None


def test_a_scene_of_ours_is_a_prediction(tmp_path):
    world = native.small_world()
    native.write_sintel(tmp_path / "sintel", world, "alley_2")
    write_world_scene(world, tmp_path / "pred.h5")
    clip = open_benchmark(tmp_path / "sintel").entries[0].load()
    found = read_prediction(tmp_path / "pred.h5", clip, ALL)
    np.testing.assert_allclose(found.world_from_cam, clip.world_from_cam, atol=1e-12)
    np.testing.assert_array_equal(found.z_depth, clip.depth_stack())
    assert g.is_rigid(found.world_from_cam).all()
    write_world_scene(native.small_world(num_frames=4), tmp_path / "short.h5")
    with pytest.raises(FormatError, match="4 frames"):
        read_prediction(tmp_path / "short.h5", clip, ALL)
