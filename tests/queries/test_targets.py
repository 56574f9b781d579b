"""Every target of every query against the world that made the clip, through crop, resize and stride."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from datakit import MotionKind, UsageError, Visibility
from datakit.geometry import (
    invert_rigid,
    project_points,
    rigid_from,
    rotation_from_axis_angle,
    transform_points,
)
from datakit.queries import SAMPLERS, ClipView, Draw, answer, cut_patches, find_sampler, sample
from datakit.schema import require_record
from datakit.worlds import World, random_world
from tests.queries.views import edges, view_of, world_motion

COUNT = 2048
FRAMES = [0, 3, 4, 9, 11]
CROP = (0.15, 0.1, 0.9, 0.8)


@pytest.fixture(scope="module", params=["static", "rigid"])
def world(request: pytest.FixtureRequest) -> World:
    return random_world(7, motion=request.param, num_frames=12, size=(128, 96))


def centred(clip: ClipView, draw: Draw) -> Draw:
    """Move queries to centres of depth pixels, where depth is exact; drop those that leave the crop by it."""
    to_depth = clip.depth_intrinsics @ np.linalg.inv(clip.intrinsics)
    scale, shift = to_depth[0, [0, 1], [0, 1]], to_depth[0, [0, 1], [2, 2]]
    uv_depth = np.floor(draw.uv_px * scale + shift) + 0.5
    uv = (uv_depth - shift) / scale
    keep = ((uv >= 0) & (uv <= clip.size)).all(axis=1)
    return Draw(uv[keep], draw.t_src[keep], draw.t_tgt[keep], draw.t_cam[keep], draw.kind[keep])


def truth(world: World, clip: ClipView, draw: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World points at t_src and t_tgt, and the exact states at full field of view."""
    frames = clip.motion_index
    uv_full = draw.uv_px @ np.diag(
        1 / np.diag(clip.intrinsics[0])[:2] * np.diag(clip.depth_intrinsics[0])[:2]
    )
    shift = clip.depth_intrinsics[0, :2, 2] - clip.intrinsics[0, :2, 2] * (
        np.diag(clip.depth_intrinsics[0])[:2] / np.diag(clip.intrinsics[0])[:2]
    )
    uv_full = uv_full + shift
    src, _ = world.track("camera", uv_full, frames[draw.t_src], frames[draw.t_src])
    tgt, state = world.track("camera", uv_full, frames[draw.t_src], frames[draw.t_tgt])
    return src, tgt, state


def test_xyz_uv_displacement_and_normal_are_exact(world: World) -> None:
    clip = view_of(world, FRAMES, CROP)
    draw = centred(clip, find_sampler("paper")(clip, np.random.default_rng(0), COUNT))
    found = answer(clip, draw)
    src, tgt, _ = truth(world, clip, draw)
    cam_from_world = invert_rigid(clip.world_from_cam[draw.t_cam])
    xyz = transform_points(cam_from_world, tgt)
    has = found["has_xyz"]
    assert has.mean() > 0.99
    error = np.linalg.norm(found["xyz"] - xyz, axis=1) / np.linalg.norm(xyz, axis=1)
    assert error[has].max() < 1e-4
    moved = np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], tgt - src)
    assert np.abs(found["displacement"] - moved)[has].max() < 1e-4
    uv, z = project_points(xyz, clip.intrinsics[draw.t_cam])
    inside = (z > 0) & ((uv >= 0) & (uv <= clip.size)).all(axis=1)
    decided = ~(np.abs(uv - np.clip(uv, 0, clip.size)) < 1e-3).all(axis=1) | inside
    np.testing.assert_array_equal(found["has_uv"][has & decided], inside[has & decided])
    both = found["has_uv"] & inside
    assert both.sum() > 500
    assert np.abs(found["target_uv"] * clip.size - uv)[both].max() < 0.01


def crop(padded: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Cut the middle of an array out."""
    lead = [(have - want) // 2 for have, want in zip(padded.shape, shape, strict=True)]
    return padded[tuple(slice(a, a + n) for a, n in zip(lead, shape, strict=True))]


def test_visibility_away_from_edges(world: World) -> None:
    clip = view_of(world, FRAMES, CROP)
    draw = centred(clip, find_sampler("uniform")(clip, np.random.default_rng(1), 4 * COUNT))
    found = answer(clip, draw)
    _, tgt, state = truth(world, clip, draw)
    uv, z = project_points(
        transform_points(invert_rigid(clip.world_from_cam[draw.t_tgt]), tgt), clip.intrinsics[draw.t_tgt]
    )
    in_crop = (z > 0) & ((uv >= 0) & (uv <= clip.size)).all(axis=1)
    want = (state == Visibility.VISIBLE) & in_crop
    ids = clip.instances
    inverse, bend = np.pad(1 / clip.z_depth, ((0, 0), (1, 1), (1, 1)), "reflect"), 0.0
    for axis in (1, 2):
        bend = np.maximum(bend, np.abs(crop(np.diff(inverse, 2, axis=axis), ids.shape)))
    bend *= clip.z_depth
    edge = (maximum_filter(ids, (1, 5, 5)) != minimum_filter(ids, (1, 5, 5))) | (
        maximum_filter(bend, (1, 5, 5)) > 0.02
    )
    to_depth = clip.depth_intrinsics @ np.linalg.inv(clip.intrinsics)
    uv_depth = np.einsum("nij,nj->ni", to_depth[draw.t_tgt], np.c_[uv, np.ones(len(uv))])[:, :2]
    ok = in_crop & np.isfinite(uv_depth).all(axis=1)
    col, row = np.clip(np.where(ok[:, None], uv_depth, 0).astype(int), 0, np.array(clip.depth_size) - 1).T
    away = ~ok | ~edge[draw.t_tgt, row, col]
    known = found["has_visible"] & away
    assert known.mean() > 0.5
    assert (found["visible"] == want)[known].mean() >= 0.999
    assert found["has_visible"][away].mean() > 0.995


def test_a_rotating_objects_normal_turns_with_it() -> None:
    world = random_world(7, motion="rigid", num_frames=12, size=(128, 96))
    clip = view_of(world, FRAMES)
    moving = [b.id for b in world.instances if b.motion == MotionKind.RIGID]
    t, row, col = (
        a[::7] for a in np.nonzero(np.isin(clip.instances, moving) & (np.arange(5) == 0)[:, None, None])
    )
    uv = np.stack([col, row], -1) + 0.5
    uv = uv * (np.diag(clip.intrinsics[0])[:2] / np.diag(clip.depth_intrinsics[0])[:2])
    later = np.full(len(t), 4)
    draw = Draw(uv, t, later, later, np.zeros(len(t), np.uint8))
    found = answer(clip, draw)
    turned = 0.0
    for n, ident in enumerate(clip.instances[t, row, col]):
        at = world.world_from_instance_at(int(ident), world.times[[FRAMES[0], FRAMES[4]]])[:, :3, :3]
        normal = at[1] @ at[0].T @ clip.normals_world[t[n], row[n], col[n]]
        want = clip.world_from_cam[4, :3, :3].T @ normal
        assert found["has_normal"][n]
        np.testing.assert_allclose(found["normal"][n], want, atol=1e-5)
        turned = max(turned, np.degrees(np.arccos(np.clip(np.trace(at[1] @ at[0].T) / 2 - 0.5, -1, 1))))
    assert len(t) > 20 and turned > 10  # something did rotate


def test_normals_from_depth_where_planar(world: World) -> None:
    with_normals = view_of(world, FRAMES)
    without = replace(with_normals, normals_world=None)
    draw = centred(with_normals, find_sampler("uniform")(with_normals, np.random.default_rng(0), COUNT))
    draw = replace(draw, t_tgt=draw.t_src)
    given, made = answer(with_normals, draw), answer(without, draw)
    both = given["has_normal"] & made["has_normal"]
    assert both.mean() > 0.5
    cosine = (given["normal"] * made["normal"]).sum(axis=1)[both]
    assert np.quantile(cosine, 0.05) > 0.99 and np.median(cosine) > 0.9999


def test_a_hole_in_the_target_depth_is_never_occluded(world: World) -> None:
    clip = view_of(world, FRAMES)
    holed = clip.z_depth.copy()
    holed[2, 20:60, 20:90] = np.nan
    clip = replace(clip, z_depth=holed)
    draw = find_sampler("uniform")(clip, np.random.default_rng(0), COUNT)
    draw = replace(draw, t_tgt=np.full(COUNT, 2))
    whole = view_of(world, FRAMES)
    before, after = answer(whole, draw), answer(clip, draw)
    src_ok = np.isfinite(after["xyz"]).all(axis=1) & (draw.t_src != 2)
    became_unknown = src_ok & before["has_visible"] & ~after["has_visible"]
    assert became_unknown.sum() > 50
    np.testing.assert_array_equal(
        after["visible"][src_ok & after["has_visible"]], before["visible"][src_ok & after["has_visible"]]
    )


def test_scale_of_the_world_changes_nothing_but_lengths(world: World) -> None:
    """An up-to-scale scene must never meet an absolute tolerance."""
    clip = view_of(world, FRAMES, CROP)
    tiny = 1e-3
    scaled_pose = clip.world_from_cam.copy()
    scaled_pose[:, :3, 3] *= tiny
    scaled_instances = clip.motion.world_from_instance.copy()
    scaled_instances[..., :3, 3] *= tiny
    small = replace(
        clip,
        world_from_cam=scaled_pose,
        z_depth=(clip.z_depth * tiny).astype(np.float32),
        motion=replace(clip.motion, world_from_instance=scaled_instances),
    )
    draw = find_sampler("paper")(clip, np.random.default_rng(0), COUNT)
    big, little = answer(clip, draw), answer(small, draw)
    for name in ("visible", "has_visible", "has_xyz", "has_normal"):
        assert (big[name] == little[name]).mean() > 0.999, name
    np.testing.assert_allclose(little["xyz"], big["xyz"] * tiny, rtol=1e-4, atol=1e-7)


def test_unknown_poses_mask_what_they_touch(world: World) -> None:
    clip = view_of(world, FRAMES)
    poses = clip.world_from_cam.copy()
    poses[1] = np.nan
    known = np.array([True, False, True, True, True])
    clip = replace(clip, world_from_cam=poses, pose_is_known=known)
    out = sample(clip, np.random.default_rng(0), COUNT)
    touched = (out["t_src"] == 1) | (out["t_cam"] == 1)
    # The one exception: seen and asked for in one frame of an unknown pose needs no pose at all.
    assert not out["has_xyz"][touched].any()
    assert out["has_xyz"][~touched & (out["t_tgt"] != 1)].mean() > 0.99
    assert not out["has_visible"][(out["t_tgt"] == 1) & (out["t_src"] != 1)].any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_the_contract(world: World, name: str) -> None:
    clip = view_of(world, FRAMES, CROP)
    clip = replace(clip, boundary_depth=edges(clip, moving=False), boundary_motion=edges(clip, moving=True))
    out = sample(clip, np.random.default_rng(0), 300, name)
    kind = out.pop("kind")
    require_record("query", out, "query")
    assert set(kind) <= {0, 1, 2} and len(out["uv"]) == 300
    assert {int(t) for key in ("t_src", "t_tgt", "t_cam") for t in out[key]} <= set(range(5))
    if name in ("depth", "track", "cloud", "camera"):
        pairs = {"depth": ("t_src", "t_tgt"), "track": ("t_tgt", "t_cam")}.get(name, ("t_tgt", "t_src"))
        np.testing.assert_array_equal(out[pairs[0]], out[pairs[1]])


def test_exact_ratios() -> None:
    world = random_world(7, motion="rigid", num_frames=12, size=(128, 96))
    clip = view_of(world, FRAMES)
    clip = replace(clip, boundary_depth=edges(clip, moving=False), boundary_motion=edges(clip, moving=True))
    same = []
    for seed in range(20):
        out = sample(clip, np.random.default_rng(seed), COUNT)
        assert (out["kind"] > 0).sum() == round(0.3 * COUNT)
        assert abs((out["kind"] == 1).sum() - (out["kind"] == 2).sum()) <= 1
        same.append((out["t_tgt"] == out["t_cam"]).mean())
    # Forced for 40 %, by chance for one in five of the rest.
    assert abs(np.mean(same) - (0.4 + 0.6 / 5)) < 0.01
    for name in ("t_src", "t_tgt", "t_cam"):
        assert np.bincount(out[name], minlength=5).min() > COUNT / 5 * 0.7


def test_boundary_queries_are_near_boundaries_and_in_the_crop() -> None:
    world = random_world(7, motion="rigid", num_frames=12, size=(128, 96))
    clip = view_of(world, FRAMES, CROP)
    rows = edges(clip, moving=False)
    clip = replace(clip, boundary_depth=rows)
    out = sample(clip, np.random.default_rng(0), COUNT)
    at = out["kind"] == 1
    assert at.sum() == round(0.3 * COUNT) and not (out["kind"] == 2).any()
    to_depth = clip.depth_intrinsics @ np.linalg.inv(clip.intrinsics)
    uv = np.c_[out["uv"][at] * clip.size, np.ones(at.sum())]
    uv = np.einsum("nij,nj->ni", to_depth[out["t_src"][at]], uv)[:, :2]
    mask = np.zeros(clip.z_depth.shape, bool)
    mask[tuple(rows.T)] = True
    near = maximum_filter(mask, (1, 3, 3))
    col, row = np.clip(uv.astype(int), 0, np.array(clip.depth_size) - 1).T
    assert near[out["t_src"][at], row, col].all()


def test_sparse_depth_is_asked_where_it_is(world: World) -> None:
    clip = view_of(world, FRAMES, CROP)
    sparse = np.full_like(clip.z_depth, np.nan)
    keep = np.random.default_rng(0).random(sparse.shape) < 0.01
    sparse[keep] = clip.z_depth[keep]
    clip = replace(clip, z_depth=sparse, depth_kind="lidar")
    out = sample(clip, np.random.default_rng(0), COUNT, "uniform")
    assert out["has_xyz"].mean() > 0.95


def test_patches_are_the_pixels_around_the_query(world: World) -> None:
    clip = view_of(world, FRAMES, CROP)
    coded = np.zeros_like(clip.patch_frames)
    rows, cols = np.indices(coded.shape[1:3])
    coded[..., 0], coded[..., 1] = rows, cols
    coded[..., 2] = np.arange(len(coded))[:, None, None]
    clip = replace(clip, patch_frames=coded)
    draw = find_sampler("uniform")(clip, np.random.default_rng(0), 200)
    patch = cut_patches(clip, draw)
    to_patch = clip.patch_intrinsics @ np.linalg.inv(clip.intrinsics)
    uv = np.einsum("nij,nj->ni", to_patch[draw.t_src], np.c_[draw.uv_px, np.ones(200)])[:, :2]
    middle = np.floor(uv).astype(int)
    np.testing.assert_array_equal(patch[:, 1, 4, 4], middle[:, 0])
    np.testing.assert_array_equal(patch[:, 0, 4, 4], middle[:, 1])
    np.testing.assert_array_equal(patch[:, 2, 4, 4], draw.t_src)
    np.testing.assert_array_equal(patch[:, 0, 0, 4], np.maximum(middle[:, 1] - 4, 0))
    np.testing.assert_array_equal(patch[:, 1, 4, 8], np.minimum(middle[:, 0] + 4, 127))


def test_same_seed_same_queries(world: World) -> None:
    clip = view_of(world, FRAMES)
    first, second = (sample(clip, np.random.default_rng(3), 100) for _ in range(2))
    other = sample(clip, np.random.default_rng(4), 100)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    assert (first["uv"] != other["uv"]).any()


def test_unknown_sampler_names_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean uniform"):
        find_sampler("uniforn")


def test_moving_the_world_frame_changes_no_target() -> None:
    """Targets are in cameras: any rigid change of the world frame leaves them as they are."""
    world = random_world(7, motion="rigid", num_frames=12, size=(128, 96))
    clip = view_of(world, FRAMES)
    other = rigid_from(rotation_from_axis_angle([0.3, -0.5, 0.2]), [3.0, -2, 5])
    moved = replace(
        clip,
        world_from_cam=other @ clip.world_from_cam,
        normals_world=(clip.normals_world @ other[:3, :3].T).astype(np.float32),
        motion=replace(world_motion(world), world_from_instance=other @ clip.motion.world_from_instance),
    )
    draw = find_sampler("uniform")(clip, np.random.default_rng(0), 500)
    a, b = answer(clip, draw), answer(moved, draw)
    for name in ("xyz", "displacement", "normal", "target_uv"):
        np.testing.assert_allclose(a[name], b[name], atol=2e-4)
