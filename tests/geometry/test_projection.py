import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datakit import geometry as g
from datakit.errors import ConventionError

K = np.array([[500.0, 0, 320], [0, 480, 240], [0, 0, 1]])
POINTS = np.random.default_rng(0).uniform([-2, -2, 2], [2, 2, 8], size=(200, 3))


def test_unprojection_inverts_projection_with_skew() -> None:
    skewed = K + np.array([[0, 3.0, 0], [0, 0, 0], [0, 0, 0]])
    uv, z = g.project_points(POINTS, skewed)
    np.testing.assert_allclose(g.unproject_pixels(uv, z, skewed), POINTS, atol=1e-12)


def test_points_behind_the_camera_have_no_pixel() -> None:
    uv, z = g.project_points([[0.0, 0, -1], [0, 0, 0], [0, 0, 1]], K)
    assert np.isnan(uv[:2]).all() and uv[2].tolist() == [320, 240]
    assert z.tolist() == [-1, 0, 1]


def test_opencv_sees_the_same_pixels_half_a_pixel_off() -> None:
    """OpenCV counts pixel centres as integers: its pixels are ours minus one half."""
    centre_k = g.centre_from_corner_intrinsics(K)
    want, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), centre_k, None)
    uv, _ = g.project_points(POINTS, K)
    np.testing.assert_allclose(uv - 0.5, want[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("opencv", [0.05, -0.02, 0.001, -0.002]),
        ("full_opencv", [0.05, -0.02, 0.001, -0.002, 0.01, 0.02, 0, 0]),
    ],
)
def test_distortion_agrees_with_opencv(model: str, distortion: list[float]) -> None:
    pytest.importorskip("pycolmap")
    want, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), K, np.array(distortion))
    uv, z = g.project_distorted(POINTS, K, model, distortion)
    np.testing.assert_allclose(uv, want[:, 0], atol=1e-8)
    np.testing.assert_allclose(g.unproject_distorted(uv, z, K, model, distortion), POINTS, atol=1e-6)


def test_fisheye_agrees_with_opencv() -> None:
    pytest.importorskip("pycolmap")
    coefficients = [0.02, -0.01, 0.003, 0.0]
    points = POINTS[:, None].astype(np.float64)
    want, _ = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(coefficients))
    uv, z = g.project_distorted(POINTS, K, "opencv_fisheye", coefficients)
    np.testing.assert_allclose(uv, want[:, 0], atol=1e-8)
    np.testing.assert_allclose(
        g.unproject_distorted(uv, z, K, "opencv_fisheye", coefficients), POINTS, atol=1e-6
    )


def test_distorted_points_behind_the_camera_have_no_pixel() -> None:
    pytest.importorskip("pycolmap")
    uv, _ = g.project_distorted([[0.0, 0, -1], [0, 0, 1]], K, "opencv", [0.1, 0, 0, 0])
    assert np.isnan(uv[0]).all() and np.isfinite(uv[1]).all()


def test_wrong_distortion_is_refused() -> None:
    with pytest.raises(ConventionError, match="4 distortion"):
        g.project_distorted(POINTS, K, "opencv", [0.1])
    with pytest.raises(ConventionError, match="Unknown camera model"):
        g.project_distorted(POINTS, K, "brown", [0.1])


def test_depth_meanings_differ_by_the_ray_length() -> None:
    z = np.full((480, 640), 3.0)
    ray = g.ray_distance_from_z(z, K)
    # The corner pixel's centre is (0.5, 0.5): its ray, by hand.
    assert ray[0, 0] == pytest.approx(3 * np.sqrt(1 + (319.5 / 500) ** 2 + (239.5 / 480) ** 2), rel=1e-12)
    np.testing.assert_allclose(g.z_from_ray_distance(ray, K), z, rtol=1e-12)


@given(st.floats(0, 300), st.floats(0, 200), st.floats(0.1, 4), st.floats(0.1, 4))
def test_crop_and_resize_commute_with_projection(left: float, top: float, sx: float, sy: float) -> None:
    uv, _ = g.project_points(POINTS, K)
    cropped, _ = g.project_points(POINTS, g.crop_intrinsics(K, left, top))
    np.testing.assert_allclose(cropped, uv - [left, top], atol=1e-9)
    resized, _ = g.project_points(POINTS, g.resize_intrinsics(K, (640, 480), (640 * sx, 480 * sy)))
    np.testing.assert_allclose(resized, uv * [sx, sy], atol=1e-9)


def test_an_averaged_half_size_image_needs_no_half_pixel() -> None:
    """The pixel of a 2x2 block average sits at the block's centre, which is where the resized K puts it."""
    centres = g.pixel_centres((640, 480))
    blocks = centres.reshape(240, 2, 320, 2, 2).mean(axis=(1, 3))
    half_k = g.resize_intrinsics(K, (640, 480), (320, 240))
    np.testing.assert_allclose(
        g.camera_rays(blocks, K), g.camera_rays(g.pixel_centres((320, 240)), half_k), atol=1e-12
    )


def test_grids_of_one_camera_relate_by_a_homography() -> None:
    other = np.array([[250.0, 0, 165], [0, 260, 118], [0, 0, 1]])
    uv_a, _ = g.project_points(POINTS, K)
    uv_b, _ = g.project_points(POINTS, other)
    np.testing.assert_allclose(g.homography_points(other @ np.linalg.inv(K), uv_a), uv_b, atol=1e-9)
