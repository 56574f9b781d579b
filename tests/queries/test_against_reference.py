"""Answers and patches against plain numpy (`tests.queries.reference`), and what they must not depend on."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from datakit import ConventionError, UsageError
from datakit.queries import ClipView, Draw, answer, cut_patches, find_sampler, sample
from datakit.worlds import random_world
from datakit.worlds.scene import world_motion
from tests.queries import reference
from tests.queries.views import edges, view_of

FRAMES = [0, 3, 4, 9, 11]
CROP = (0.15, 0.1, 0.9, 0.8)
TARGETS = ("xyz", "target_uv", "displacement", "normal", "visible")
MASKS = tuple(f"has_{name}" for name in ("xyz", "uv", "displacement", "normal", "visible"))


@pytest.fixture(scope="module", params=["static", "rigid", "points", "mixed"])
def clip(request: pytest.FixtureRequest) -> ClipView:
    world = random_world(3, motion=request.param, num_frames=12, size=(96, 80))
    view = view_of(world, FRAMES, CROP, motion=world_motion(world))
    view.z_depth[3, 20:40, 30:60] = np.nan
    poses = view.world_from_cam.copy()
    poses[4] = np.nan
    rows = {"boundary_depth": edges(view, moving=False), "boundary_motion": edges(view, moving=True)}
    known = np.isfinite(poses[:, 0, 0])
    index = np.array([0, 3, -1, 9, 11])
    return replace(view, world_from_cam=poses, pose_is_known=known, motion_index=index, **rows)


def variants(clip: ClipView) -> dict[str, ClipView]:
    turn = np.array([[0.9, 0.02, 3], [0.01, 1.1, -2], [1e-4, -2e-4, 1]])
    return {
        "as it is": clip,
        "normals from depth": replace(clip, normals_world=None),
        "no labels": replace(clip, instances=None, normals_world=None),
        "lidar": replace(clip, depth_kind="lidar"),
        "patches of another grid": replace(clip, patch_intrinsics=turn @ clip.patch_intrinsics),
    }


@pytest.mark.parametrize(
    "name", ["as it is", "normals from depth", "no labels", "lidar", "patches of another grid"]
)
def test_answers_are_those_of_numpy(clip: ClipView, name: str) -> None:
    view = variants(clip)[name]
    draw = find_sampler("paper")(view, np.random.default_rng(0), 2048)
    # Beside what samplers draw: pixels of the border and beyond it.
    uv = draw.uv_px.copy()
    uv[::9] = np.random.default_rng(1).uniform(-5, 69, uv[::9].shape)
    draw = replace(draw, uv_px=uv)
    found, want = answer(view, draw), reference.answer(view, draw)
    for mask in MASKS:
        np.testing.assert_array_equal(found[mask], want[mask], err_msg=mask)
        assert 0 < found[mask].mean() < 1, mask
    for target in TARGETS:
        assert found[target].dtype == want[target].dtype
        np.testing.assert_allclose(found[target], want[target], rtol=2e-5, atol=2e-5, err_msg=target)
    np.testing.assert_array_equal(cut_patches(view, draw), reference.cut_patches(view, draw))


def test_a_query_does_not_depend_on_the_others(clip: ClipView) -> None:
    draw = find_sampler("paper")(clip, np.random.default_rng(0), 500)
    order = np.random.default_rng(1).permutation(500)[:300]
    names = ("uv_px", "t_src", "t_tgt", "t_cam", "kind")
    some = Draw(*(getattr(draw, name)[order] for name in names))
    whole, part = answer(clip, draw), answer(clip, some)
    for name in (*TARGETS, *MASKS):
        np.testing.assert_array_equal(whole[name][order], part[name], err_msg=name)


def test_threads_change_nothing(clip: ClipView) -> None:
    def ask(seed: int) -> dict[str, np.ndarray]:
        return sample(clip, np.random.default_rng(seed), 512)

    alone = [ask(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, range(6)))
    for one, other in zip(alone, together, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_arrays_of_any_layout_are_taken(clip: ClipView) -> None:
    draw = find_sampler("uniform")(clip, np.random.default_rng(0), 64)
    odd = Draw(
        np.asfortranarray(draw.uv_px), *(np.repeat(t, 2)[::2].astype(np.int32) for t in (draw.t_src, draw.t_tgt)),
        np.broadcast_to(draw.t_cam, (2, 64))[1], draw.kind.astype(np.int64),
    )  # fmt: skip
    frozen = clip.world_from_cam.copy(order="F")
    frozen.flags.writeable = False
    for name, value in answer(replace(clip, world_from_cam=frozen), odd).items():
        np.testing.assert_array_equal(value, answer(clip, draw)[name], err_msg=name)


def test_questions_that_do_not_fit_the_clip_are_refused(clip: ClipView) -> None:
    draw = find_sampler("uniform")(clip, np.random.default_rng(0), 8)
    for name in ("t_src", "t_tgt", "t_cam"):
        for frame in (-1, 5):
            with pytest.raises(UsageError, match="frame"):
                answer(clip, replace(draw, **{name: np.full(8, frame)}))
    with pytest.raises(UsageError, match="arrays"):
        cut_patches(clip, replace(draw, t_src=draw.t_src[:7]))


@pytest.mark.parametrize(
    "name", ["intrinsics", "world_from_cam", "z_depth", "instances", "patch_frames", "motion_index"]
)
def test_clips_whose_parts_do_not_fit_are_refused(clip: ClipView, name: str) -> None:
    with pytest.raises(ConventionError, match=name):
        replace(clip, **{name: getattr(clip, name)[:4]})


def test_boundaries_of_frames_that_are_not_there_are_refused(clip: ClipView) -> None:
    with pytest.raises(ConventionError, match="boundary_motion"):
        replace(clip, boundary_motion=np.array([[5, 1, 1]]))


def test_boundary_frames_are_drawn_evenly(clip: ClipView) -> None:
    """A frame with a hundred boundary pixels gets as many queries as one with a single pixel."""
    inside = np.array(
        [[t, row, 50] for t, count in ((0, 100), (2, 1), (3, 7)) for row in np.linspace(15, 60, count)]
    )
    outside = np.array([[1, 0, 0], [4, 79, 95]])
    rows = np.concatenate([inside, outside])[np.argsort(np.r_[inside[:, 0], outside[:, 0]], kind="stable")]
    view = replace(clip, boundary_depth=rows.astype(np.int64), boundary_motion=np.zeros((0, 3), int))
    draw = find_sampler("paper")(view, np.random.default_rng(0), 10_000)
    near = draw.kind == 1
    assert near.sum() == 3000
    share = np.bincount(draw.t_src[near], minlength=5) / 3000
    np.testing.assert_allclose(share, [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.03)
    # Places are spread over the pixel.
    at = near & (draw.t_src == 2)
    to_depth = view.depth_from_network[2]
    place = (np.c_[draw.uv_px[at], np.ones(at.sum())] @ to_depth.T)[:, :2] - [50, 15]
    assert place.min() > -1e-9 and place.max() < 1 + 1e-9
    assert np.abs(np.histogram2d(*place.T, bins=3, range=[[0, 1], [0, 1]])[0] / at.sum() - 1 / 9).max() < 0.03


def test_rasters_that_stay_coded_give_the_same_queries(clip: ClipView) -> None:
    """What the stream hands over: codes with a table, read in place."""

    class Coded:
        def __init__(self, codes, decode):
            self.codes, self.decode, self.shape = codes, decode, codes.shape

        def __getitem__(self, index):
            return self.decode(self.codes[index])

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.decode(self.codes), dtype)

    table = np.linspace(0, 40, 65536, dtype=np.float32)
    table[0] = np.nan
    codes = np.nan_to_num(np.round(clip.z_depth / 40 * 65535)).astype(np.uint16)
    plain = replace(clip, z_depth=table[codes])
    coded = replace(clip, z_depth=Coded(codes, lambda some: table[some]))
    for name in ("paper", "difficult"):
        want = sample(plain, np.random.default_rng(0), 600, name)
        for key, value in sample(coded, np.random.default_rng(0), 600, name).items():
            np.testing.assert_array_equal(value, want[key], err_msg=key)


def test_normals_from_depth_face_the_camera_also_on_floors_that_fall_away() -> None:
    """Of such a floor the normal's z is positive, and still it is the side that is seen."""
    view = view_of(random_world(3, motion="static", num_frames=1, size=(64, 64)), [0])
    normal = np.array([0, -0.97, 0.24])
    intrinsics = np.array([[[40.0, 0, 32], [0, 40, 10], [0, 0, 1]]])
    rows = np.arange(64)[:, None] + 0.5
    facing = normal[2] + normal[1] * (rows - 10) / 40 + np.zeros((1, 64))
    z = np.where(facing < -0.1, -2 / np.minimum(facing, -0.1), np.nan).astype(np.float32)
    floor = replace(
        view,
        z_depth=z[None],
        instances=None,
        normals_world=None,
        intrinsics=intrinsics,
        depth_intrinsics=intrinsics,
        world_from_cam=np.eye(4)[None],
    )
    zero = np.zeros(30, np.int64)
    uv = np.random.default_rng(0).uniform([5, 35], [59, 60], (30, 2))
    found = answer(floor, Draw(uv, zero, zero, zero, zero.astype(np.uint8)))
    assert found["has_normal"].all()
    np.testing.assert_allclose(found["normal"], np.tile(normal / np.linalg.norm(normal), (30, 1)), atol=1e-4)


def test_patches_repeat_the_edge_on_all_four_sides() -> None:
    view = view_of(random_world(3, motion="static", num_frames=2, size=(40, 30)), [0, 1], size=(40, 30))
    noise = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    view = replace(view, patch_frames=noise)
    u, v = (
        a.ravel()
        for a in np.meshgrid([0, 0.5, 3.9, 4, 20, 35.5, 36, 39.9, 40], [0, 2, 4.1, 15, 25.9, 26, 29, 30])
    )
    t = np.arange(len(u)) % 2
    draw = Draw(np.stack([u, v], axis=1), t, t, t, t.astype(np.uint8))
    np.testing.assert_array_equal(cut_patches(view, draw), reference.cut_patches(view, draw))
