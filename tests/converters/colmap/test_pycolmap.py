"""Our reader and writer against COLMAP's own, which owe them nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.colmap.dense import parse_depth_map
from converters.colmap.lens import kept_lens, lens_of, project_source, rectify
from converters.colmap.model import read_model
from converters.colmap.points import world_from_cam
from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.export.colmap_model import CAMERA_MODELS, ColmapCamera, write_depth_map, write_model

from .workspaces import small_world, write_workspace

pycolmap = pytest.importorskip("pycolmap")

#: A mild lens of every model, of an image of 64x48.
SIZE = (64, 48)
_F, _C = (60.0, 62.0), (31.5, 24.5)
PARAMS = {
    "SIMPLE_PINHOLE": (60.0, *_C),
    "PINHOLE": (*_F, *_C),
    "SIMPLE_RADIAL": (60.0, *_C, -0.05),
    "RADIAL": (60.0, *_C, -0.05, 0.01),
    "OPENCV": (*_F, *_C, -0.05, 0.01, 0.002, -0.001),
    "OPENCV_FISHEYE": (*_F, *_C, 0.02, -0.01, 0.003, -0.001),
    "FULL_OPENCV": (*_F, *_C, -0.05, 0.01, 0.002, -0.001, 0.001, 0.02, 0.003, 0.001),
    "FOV": (*_F, *_C, 0.3),
    "SIMPLE_RADIAL_FISHEYE": (60.0, *_C, 0.02),
    "RADIAL_FISHEYE": (60.0, *_C, 0.02, -0.01),
    "THIN_PRISM_FISHEYE": (*_F, *_C, 0.02, -0.01, 0.001, 0.002, 0.003, -0.001, 0.001, 0.002),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *_F,
        *_C,
        *(0.01, -0.01, 0.001, 0, 0, 0),
        0.001,
        0.002,
        *(0.001, 0, 0.001, 0),
    ),
    "SIMPLE_DIVISION": (60.0, *_C, -0.05),
    "DIVISION": (*_F, *_C, -0.05),
    "SIMPLE_FISHEYE": (60.0, *_C),
    "FISHEYE": (*_F, *_C),
    "EUCM": (*_F, *_C, 0.5, 1.1),
    "EQUIRECTANGULAR": (64.0, 48.0),
}


#: What the installed release knows, but for panoramas, which are no lens.
LENSES = [m for m in PARAMS if m != "EQUIRECTANGULAR" and m in pycolmap.CameraModelId.__members__]


def test_all_of_colmaps_camera_models_are_known() -> None:
    theirs = {
        name: int(m.value) for name, m in pycolmap.CameraModelId.__members__.items() if name != "INVALID"
    }
    ours = {name: id for name, (id, _) in CAMERA_MODELS.items()}
    # Newer releases of COLMAP may know more; what both know must be the same.
    assert {name: theirs[name] for name in ours if name in theirs} == {
        n: i for n, i in ours.items() if n in theirs
    }
    assert set(PARAMS) == set(ours) >= {"PINHOLE", "OPENCV", "FULL_OPENCV"}
    for name in set(ours) & set(theirs):
        assert len(_camera(name).params) == CAMERA_MODELS[name][1] == len(PARAMS[name])


def _camera(model: str) -> Any:
    return pycolmap.Camera(model=model, width=SIZE[0], height=SIZE[1], params=list(PARAMS[model]))


def _reconstruction(model: str = "OPENCV") -> Any:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 2, 3
    options.num_points3D = 60
    options.camera_model_id = getattr(pycolmap.CameraModelId, model)
    options.camera_params = list(PARAMS[model])
    options.camera_width, options.camera_height = SIZE
    return pycolmap.synthesize_dataset(options)


@pytest.mark.parametrize("as_text", [False, True], ids=["binary", "text"])
def test_what_colmap_writes_is_read_as_colmap_reads_it(tmp_path: Path, as_text: bool) -> None:
    """With rigs, so that poses are products of two; the files hold the products."""
    theirs = _reconstruction()
    write = theirs.write_text if as_text else theirs.write_binary
    write(str(tmp_path))
    ours = read_model(tmp_path, Path(), ".txt" if as_text else ".bin", [])
    assert len(ours.images) == theirs.num_images() == 12 and len(ours.points.ids) == theirs.num_points3D()
    tolerance = 1e-6 if as_text else 1e-12
    for image in ours.images:
        other = theirs.images[image.id]
        assert (image.name, image.camera_id) == (other.name, other.camera_id)
        matrix = np.eye(4)
        matrix[:3] = other.cam_from_world().matrix()
        assert np.abs(world_from_cam(image) - np.linalg.inv(matrix)).max() < max(tolerance, 1e-9)
        uv = np.array([p.xy for p in other.points2D]).reshape(-1, 2)
        assert image.uv_px.shape == uv.shape and np.abs(image.uv_px - uv).max() < tolerance
        ids = [p.point3D_id if p.has_point3D() else -1 for p in other.points2D]
        assert image.point_ids.tolist() == ids
    for id, camera in ours.cameras.items():
        other = theirs.cameras[id]
        assert (camera.model, camera.size) == (other.model.name, (other.width, other.height))
        assert np.allclose(camera.params, other.params, atol=1e-9)
    for row, id in enumerate(ours.points.ids.tolist()):
        assert np.abs(ours.points.xyz[row] - theirs.points3D[id].xyz).max() < tolerance
        assert ours.points.rgb[row].tolist() == theirs.points3D[id].color.tolist()


@pytest.mark.parametrize("form", ["sparse", "sparse-text", "opencv"])
def test_colmap_reads_what_we_write(tmp_path: Path, form: str) -> None:
    world = small_world(1, num_frames=3)
    root = write_workspace(tmp_path, form, world)
    folder = next(root.rglob("cameras.*")).parent
    theirs = pycolmap.Reconstruction(str(folder))
    # The projections of the points through COLMAP's own cameras are the keypoints.
    assert theirs.num_images() == 3 and theirs.compute_mean_reprojection_error() < 1e-6
    for id, image in theirs.images.items():
        assert image.num_points3D > 20
        camera = theirs.cameras[image.camera_id]
        for point in image.points2D[1:30]:
            seen = theirs.points3D[point.point3D_id]
            uv = camera.img_from_cam(image.cam_from_world() * seen.xyz)
            assert np.abs(uv - point.xy).max() < 1e-6
            assert any(e.image_id == id for e in seen.track.elements)
    ours = read_model(folder, Path(), ".txt" if form == "sparse-text" else ".bin", [])
    write_model(tmp_path / "again", ours)
    again = pycolmap.Reconstruction(str(tmp_path / "again"))
    assert again.num_points3D() == theirs.num_points3D()


@pytest.mark.parametrize("model", LENSES)
def test_lenses_project_as_colmap_does(model: str) -> None:
    camera = ColmapCamera(1, model, SIZE, PARAMS[model])
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.4, 0.4, (50, 2)), np.ones((50, 1))], axis=1) * rng.uniform(
        1, 5, (50, 1)
    )
    want = np.asarray(_camera(model).img_from_cam(points))
    assert np.abs(project_source(camera, points) - want).max() < 1e-9
    kept = kept_lens(camera)
    assert (kept is None) == (
        model in ("FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "EUCM") or "DIVISION" in model
    )
    if kept is not None:
        uv, _ = g.project_distorted(points, kept.intrinsics, kept.model, kept.distortion)
        assert np.abs(uv - want).max() < 1e-9
    assert np.isnan(project_source(camera, points * [1, 1, -1])).all()


@pytest.mark.parametrize("model", LENSES)
def test_every_lens_can_be_rectified(model: str) -> None:
    camera = ColmapCamera(1, model, SIZE, PARAMS[model])
    lens = lens_of(camera, "undistort", "x")
    assert lens.model == "pinhole" and lens.distortion == ()
    # A gradient in the ray's direction: after rectification it must be one in the pinhole's rays.
    rays = np.asarray(_camera(model).cam_from_img(g.pixel_centres(SIZE).reshape(-1, 2)))[:, :2].reshape(
        48, 64, 2
    )
    ramp = np.clip(127 + 150 * rays, 0, 255)
    rgb = np.concatenate([ramp, ramp[..., :1]], axis=-1).round().astype(np.uint8)
    out = rectify(rgb, lens)
    assert out.shape[1::-1] == lens.size
    want = np.clip(127 + 150 * g.camera_rays(g.pixel_centres(lens.size), lens.intrinsics)[..., :2], 0, 255)
    inner = (slice(3, -3), slice(3, -3))
    assert np.abs(out[..., :2].astype(float) - want)[inner].max() < 2


def test_panoramas_are_refused() -> None:
    for distortion in ("auto", "keep", "undistort"):
        with pytest.raises(ConventionError, match="pinhole view"):
            lens_of(ColmapCamera(1, "EQUIRECTANGULAR", SIZE, PARAMS["EQUIRECTANGULAR"]), distortion, "x")


def test_a_lens_the_contract_lacks_is_rectified_or_refused() -> None:
    camera = ColmapCamera(1, "FOV", SIZE, PARAMS["FOV"])
    assert lens_of(camera, "auto", "x").source is camera
    with pytest.raises(ConventionError, match="distortion=undistort"):
        lens_of(camera, "keep", "x")


def test_depth_maps_are_colmaps(tmp_path: Path) -> None:
    z = np.random.default_rng(0).uniform(1, 5, (6, 9)).astype(np.float32)
    z[2, 3] = 0
    pycolmap.DepthMap.from_array(z, 0.5, 6.0).write(str(tmp_path / "theirs.bin"))
    ours = parse_depth_map((tmp_path / "theirs.bin").read_bytes(), "x")
    assert np.isnan(ours[2, 3]) and np.array_equal(np.nan_to_num(ours), z)
    write_depth_map(tmp_path / "ours.bin", ours)
    assert (tmp_path / "ours.bin").read_bytes() == (tmp_path / "theirs.bin").read_bytes()
    back = pycolmap.DepthMap()
    back.read(str(tmp_path / "ours.bin"))
    assert np.array_equal(back.to_array(), z)
