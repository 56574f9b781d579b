import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datakit import geometry as g
from datakit.errors import ConventionError

vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)


def random_rotations(count: int) -> np.ndarray:
    return Rotation.random(count, random_state=0).as_matrix()


def test_quaternions_agree_with_scipy_in_both_orders() -> None:
    quats = np.random.default_rng(0).normal(size=(50, 4))
    want = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(g.rotation_from_quaternion_wxyz(quats), want, atol=1e-12)
    np.testing.assert_allclose(g.rotation_from_quaternion_xyzw(quats[:, [1, 2, 3, 0]]), want, atol=1e-12)


def test_quaternion_round_trip_including_half_turns() -> None:
    half_turns = Rotation.from_rotvec(np.pi * np.eye(3)).as_matrix()
    rotations = np.concatenate([random_rotations(200), half_turns, np.eye(3)[None]])
    for back, to in (
        (g.rotation_from_quaternion_wxyz, g.quaternion_wxyz_from_rotation),
        (g.rotation_from_quaternion_xyzw, g.quaternion_xyzw_from_rotation),
    ):
        np.testing.assert_allclose(back(to(rotations)), rotations, atol=1e-12)


def test_zero_quaternion_is_nan_not_a_rotation() -> None:
    assert np.isnan(g.rotation_from_quaternion_wxyz([0, 0, 0, 0])).all()


@given(vectors)
def test_axis_angle_agrees_with_scipy(vector: np.ndarray) -> None:
    np.testing.assert_allclose(
        g.rotation_from_axis_angle(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12
    )


def test_rotation_angle_is_accurate_at_both_ends() -> None:
    angles = np.array([0.0, 1e-9, 0.5, np.pi - 1e-9, np.pi])
    found = g.rotation_angle(g.rotation_from_axis_angle(angles[:, None] * [0.6, 0.8, 0.0]))
    np.testing.assert_allclose(found, angles, atol=1e-12)


@given(vectors, vectors, vectors)
def test_inverse_undoes_a_transform(axis_angle: np.ndarray, shift: np.ndarray, point: np.ndarray) -> None:
    a_from_b = g.rigid_from(g.rotation_from_axis_angle(axis_angle), shift)
    there = g.transform_points(a_from_b, point)
    np.testing.assert_allclose(g.transform_points(g.invert_rigid(a_from_b), there), point, atol=1e-9)


def test_transform_points_broadcasts_one_pose_per_point() -> None:
    poses = g.rigid_from(random_rotations(5), np.arange(15.0).reshape(5, 3))
    points = np.random.default_rng(1).normal(size=(5, 3))
    want = [pose[:3, :3] @ p + pose[:3, 3] for pose, p in zip(poses, points, strict=True)]
    np.testing.assert_allclose(g.transform_points(poses, points), want)


def test_is_rigid_names_scale_shear_mirror_nan_and_transposed_layout() -> None:
    good = g.rigid_from(random_rotations(1)[0], [1, 2, 3])
    assert g.is_rigid(good)
    for bad in (good * 1.01, np.diag([1.0, 1, -1, 1]), np.full((4, 4), np.nan), good.T):
        assert not g.is_rigid(bad)


def test_look_at_puts_the_target_on_the_axis_and_up_upwards() -> None:
    world_from_cam = g.look_at([3.0, -4, 2], [1.0, 0, 0.5], [0, 0, 1])
    assert g.is_rigid(world_from_cam)
    target_cam = g.transform_points(g.invert_rigid(world_from_cam), [1.0, 0, 0.5])
    np.testing.assert_allclose(target_cam[:2], 0, atol=1e-12)
    assert target_cam[2] > 0
    above_cam = g.transform_points(g.invert_rigid(world_from_cam), [1.0, 0, 1.5])
    assert above_cam[1] < 0  # y points down


@given(st.integers(0, 1000), st.floats(0.1, 10), st.booleans())
def test_umeyama_recovers_a_similarity(seed: int, scale: float, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    rotation, shift = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)
    src = rng.normal(size=(6, 3))
    weights = rng.uniform(0.1, 1, 6) if weighted else None
    s, r, t = g.umeyama(src, scale * src @ rotation.T + shift, weights=weights)
    np.testing.assert_allclose((s, *r.ravel(), *t), (scale, *rotation.ravel(), *shift), atol=1e-7)


def test_umeyama_never_mirrors_and_weights_ignore_outliers() -> None:
    src = np.random.default_rng(0).normal(size=(8, 3))
    _, rotation, _ = g.umeyama(src, src * [1, 1, -1])
    assert np.linalg.det(rotation) > 0.99
    dst = src + [1.0, 2, 3]
    dst[0] += 100
    s, _, t = g.umeyama(src, dst, weights=np.r_[0, np.ones(7)])
    np.testing.assert_allclose((s, *t), (1, 1, 2, 3), atol=1e-9)


@pytest.mark.parametrize(
    "points", [np.zeros((2, 3)), np.arange(15.0).reshape(5, 3), np.full((4, 3), np.nan), np.zeros((5, 2))]
)
def test_umeyama_refuses_degenerate_sets(points: np.ndarray) -> None:
    with pytest.raises(ConventionError):
        g.umeyama(points, points)
