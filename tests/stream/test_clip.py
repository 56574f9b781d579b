"""Crops, resizes and strides against the world that made the clip, rendered anew with the resulting camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datakit.errors import FormatError, ShardError
from datakit.motion import MotionKind
from datakit.shards import open_set
from datakit.stream import ClipParams, Sample, images
from datakit.stream.clip import Scratch, load_clip
from datakit.stream.images import Box
from datakit.stream.order import Look

from .conftest import DATASETS, FRAMES, make_world

PLAIN = Look(1.0, 0.5, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0)


def sample_of(index: int, frames: tuple[int, ...], **look: float) -> Sample:
    return Sample(0, 0, "alpha", 0, index, 0, frames, PLAIN._replace(**look), 1)


def clip_of_dataset(shard_root: Path, dataset: str) -> tuple[Any, int]:
    shards = open_set(shard_root)
    return shards, next(i for i in range(shards.num_clips) if shards.scene(i).startswith(dataset))


@pytest.mark.parametrize(
    "look",
    [{}, {"area": 0.4, "aspect": 0.2, "left": 0.7, "top": 0.3}, {"area": 0.6, "aspect": 0.9, "top": 0.99}],
)
def test_the_cropped_frame_is_what_a_camera_of_the_new_intrinsics_sees(
    shard_root: Path, look: dict[str, float]
) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    world, frames = make_world(DATASETS["alpha"][0], FRAMES), (0, 2, 4, 6, 8, 10)
    view = load_clip(shards, sample_of(index, frames, **look), ClipParams(size=40)).view
    assert np.allclose(view.times, world.times[list(frames)])
    assert np.allclose(view.world_from_cam, world.views["camera"].world_from_cam[list(frames)])
    # The squared difference is smallest where the camera is right; its parabola tells where that is.
    for axis in (0, 1):
        error = np.zeros(3)
        for shown, intrinsics, t in zip(view.video, view.intrinsics, frames, strict=True):
            for at, shift in enumerate((-0.5, 0.0, 0.5)):
                camera = intrinsics.copy()
                camera[axis, 2] += shift
                truth = world.render(t, intrinsics=camera, size=(40, 40)).rgb.astype(float)
                error[at] += ((truth - shown) ** 2).mean()
        before, here, after = error
        assert here < min(before, after)
        # A slip of half a stored pixel would be 0.3 to 0.5 network pixels here.
        assert abs(0.25 * (before - after) / (before - 2 * here + after)) < 0.15


def test_a_linear_picture_is_resized_without_any_shift() -> None:
    """Colours linear in the pixel make every half-pixel slip visible as a constant difference."""
    width, height, box = 160, 120, Box(13, 7, 100, 90)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    frame = np.stack([u * 1.5, v * 2.0, 40 + 0.5 * (u + v)], axis=-1).round().astype(np.uint8)
    for size in (20, 32, 64, 200):
        grid = images.network_intrinsics(np.eye(3), box, size)
        back = np.linalg.inv(grid)
        at = np.arange(size) + 0.5
        u_src, v_src = back[0, 0] * at + back[0, 2], back[1, 1] * at + back[1, 2]
        truth = np.stack(np.broadcast_arrays(u_src[None] * 1.5, v_src[:, None] * 2.0), axis=-1)
        shown = images.crop_and_resize(frame, box, size)[..., :2].astype(float)
        inner = slice(size // 10 + 2, -size // 10 - 2)
        difference = (shown - truth)[inner, inner]
        assert np.abs(difference).max() < 1.6, size
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.6, (
            size
        )  # 8-bit halves round up; half a pixel is 0.75


@settings(max_examples=300)
@given(
    st.integers(8, 2000), st.integers(8, 2000), st.floats(0.05, 1), st.floats(0, 0.999999), st.floats(0, 0.999999),
    st.sampled_from([16, 64, 256]),
)  # fmt: skip
def test_a_crop_lies_in_the_image_and_keeps_its_share(
    width: int, height: int, area: float, aspect: float, place: float, size: int
) -> None:
    look = PLAIN._replace(area=area, aspect=aspect, left=place, top=place)
    box = images.crop_box((width, height), look, size)
    assert box.width >= 1 and box.height >= 1 and box.left >= 0 and box.top >= 0
    assert box.left + box.width <= width and box.top + box.height <= height
    step = 1 + max(box.width, box.height) / min(box.width, box.height)
    trimmed = (1 << images._halvings((box.width, box.height), size)) * (box.width + box.height)
    assert abs(box.width * box.height - area * width * height) <= step * max(width, height) + trimmed


def test_whole_image_is_kept_where_nothing_is_asked_for(shard_root: Path) -> None:
    assert images.crop_box((48, 36), PLAIN, 36) == Box(0, 0, 48, 36)
    shards, index = clip_of_dataset(shard_root, "alpha")
    clip = load_clip(shards, sample_of(index, (0, 1)), ClipParams(size=36)).view
    assert clip.aspect_ratio == 48 / 36


def test_aspect_ratios_are_even_in_log_space_and_centred_on_the_image() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for aspect in rng.random(2000):
        box = images.crop_box((640, 480), PLAIN._replace(area=0.3, aspect=aspect), 64)
        ratios.append(np.log(box.width / box.height / (640 / 480)))
    assert abs(np.mean(ratios)) < 0.06
    assert max(ratios) == pytest.approx(-np.log(0.3), abs=0.06) and min(ratios) == pytest.approx(
        np.log(0.3), abs=0.06
    )


def test_depth_and_labels_stay_on_their_grid(shard_root: Path) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    world = make_world(0, FRAMES)
    view = load_clip(shards, sample_of(index, (2, 9), area=0.3), ClipParams(size=20)).view
    for at, t in enumerate((2, 9)):
        truth = world.render(t)
        assert np.allclose(view.z_depth[at], truth.z_depth, rtol=1e-4, equal_nan=True)
        assert view.instances is not None and (view.instances[at] == truth.instances).all()
        assert view.normals_world is not None
        assert np.nanmax(np.abs(view.normals_world[at] - truth.normals_world)) < 1e-3
    assert np.allclose(view.depth_intrinsics, world.views["camera"].intrinsics[[2, 9]])


def test_boundaries_are_counted_from_the_frames_that_were_chosen(shard_root: Path) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    whole = load_clip(shards, sample_of(index, tuple(range(FRAMES))), ClipParams(size=20)).view.boundary_depth
    part = load_clip(shards, sample_of(index, (3, 5, 11)), ClipParams(size=20)).view.boundary_depth
    for new, old in enumerate((3, 5, 11)):
        assert part[part[:, 0] == new][:, 1:].tolist() == whole[whole[:, 0] == old][:, 1:].tolist()
    assert len(part) and set(part[:, 0]) <= {0, 1, 2}


def test_motion_follows_the_chosen_frames(shard_root: Path) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    world = make_world(0, FRAMES)
    view = load_clip(shards, sample_of(index, (0, 6)), ClipParams(size=20)).view
    moving = np.flatnonzero(view.motion.instance_motion == MotionKind.RIGID)
    assert len(moving)
    for row in moving:
        body = world.bodies[int(view.motion.instance_ids[row])]
        poses = view.motion.world_from_instance[view.motion_index, row]
        assert np.allclose(poses, body.world_from_instance[[0, 6]])


def test_scratch_memory_changes_nothing(shard_root: Path) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    scratch, params = Scratch(), ClipParams(size=24)
    for frames in (tuple(range(10)), (2, 3), (1, 5, 9)):
        fresh = load_clip(shards, sample_of(index, frames, area=0.5), params).view
        again = load_clip(shards, sample_of(index, frames, area=0.5), params, scratch=scratch).view
        for name in ("video", "z_depth", "instances", "normals_world", "patch_frames"):
            assert np.array_equal(getattr(fresh, name), getattr(again, name), equal_nan=name == "normals_world"
                                  or name == "z_depth"), name  # fmt: skip


class OnlyColour:
    """A set whose clips have nothing but colour and cameras."""

    def __init__(self, shards: Any) -> None:
        self._shards = shards

    def key(self, i: int) -> str:
        return self._shards.key(i)

    def has_member(self, i: int, kind: str) -> bool:
        return kind not in ("z_depth.pack", "instances.pack", "normals.pack") and self._shards.has_member(
            i, kind
        )

    def read_members(self, i: int, kinds: Any) -> dict[str, memoryview]:
        return self._shards.read_members(i, kinds)


def test_a_clip_without_depth_answers_nothing_but_is_a_clip(shard_root: Path) -> None:
    from datakit.queries import sample

    shards, index = clip_of_dataset(shard_root, "alpha")
    clip = load_clip(OnlyColour(shards), sample_of(index, (0, 1, 2)), ClipParams(size=20))
    found = sample(clip.view, np.random.default_rng(0), 64)
    assert not any(found[name].any() for name in ("has_xyz", "has_normal", "has_displacement", "has_uv"))
    assert clip.view.video.any()


class Damaged(OnlyColour):
    """A set that hands out other bytes for one member."""

    def __init__(self, shards: Any, kind: str, change: Any) -> None:
        super().__init__(shards)
        self._kind, self._change = kind, change

    def has_member(self, i: int, kind: str) -> bool:
        return self._shards.has_member(i, kind)

    def read_members(self, i: int, kinds: Any) -> dict[str, memoryview]:
        members = super().read_members(i, kinds)
        members[self._kind] = memoryview(self._change(bytes(members[self._kind])))
        return members


@pytest.mark.parametrize(
    "kind", ["clip.json", "arrays.safetensors", "rgb.pack", "z_depth.pack", "normals.pack"]
)
def test_members_that_break_off_are_typed_errors(shard_root: Path, kind: str) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    damaged = Damaged(shards, kind, lambda data: data[: len(data) // 2])
    with pytest.raises((ShardError, FormatError)):
        load_clip(damaged, sample_of(index, (0, 11)), ClipParams(size=20))


def test_a_frame_that_is_no_image_is_named(shard_root: Path) -> None:
    from datakit.shards import unpack
    from datakit.shards.codecs import pack

    shards, index = clip_of_dataset(shard_root, "alpha")

    def change(data: bytes) -> bytes:
        return pack(
            [b"\xff\xd8not a picture" if t == 4 else bytes(blob) for t, blob in enumerate(unpack(data))]
        )

    damaged = Damaged(shards, "rgb.pack", change)
    with pytest.raises(FormatError, match="frame 4"):
        load_clip(damaged, sample_of(index, (0, 4)), ClipParams(size=20))
    load_clip(damaged, sample_of(index, (0, 5)), ClipParams(size=20))  # only chosen frames are decoded


def test_colours_change_alike_in_frames_and_patches() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    look = PLAIN._replace(brightness=1.1, contrast=0.8, saturation=1.3, hue=0.03)
    matrix = images.colour_matrix(look, 120.0)
    patch = images.recolour_patches(np.moveaxis(frame, -1, 0)[None], matrix)[0]
    assert (np.moveaxis(patch, 0, -1) == images.recolour(frame, matrix)).all()


def test_each_colour_change_does_what_it_says() -> None:
    frame = np.array([[[200, 100, 50], [60, 120, 180]]], np.uint8)
    luma = np.array([0.299, 0.587, 0.114])

    def with_look(**look: float) -> np.ndarray:
        matrix = images.colour_matrix(PLAIN._replace(**look), 100.0)
        return images.recolour(frame, matrix).astype(float)

    assert np.abs(with_look() - frame).max() == 0
    assert np.abs(with_look(brightness=0.5) - frame / 2).max() <= 0.5
    assert np.abs(with_look(contrast=0.5) - (100 + (frame - 100.0) / 2)).max() <= 0.5
    grey = with_look(saturation=0)
    assert np.ptp(grey, axis=-1).max() == 0
    assert np.abs(grey[..., 0] - frame @ luma).max() <= 1
    turned = with_look(hue=0.04)
    assert np.abs(turned @ luma - frame @ luma).max() < 2 and np.abs(turned - frame).max() > 5
    assert images.changes_colour(PLAIN._replace(hue=0.01)) and not images.changes_colour(PLAIN)


def test_a_blurred_constant_stays_and_a_point_spreads() -> None:
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    spread = images.blur(point, 1.5).astype(float)[..., 0]
    v, u = np.mgrid[:21, :21]
    variance = (spread * (u - 10) ** 2).sum() / spread.sum()
    assert variance == pytest.approx(1.5**2, rel=0.15)  # 8-bit tails are cut
    assert (images.blur(np.full((9, 9, 3), 77, np.uint8), 2.0) == 77).all()
