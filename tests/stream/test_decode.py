"""Decoding into given memory, rasters that stay in their codes, and the pictures of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datakit.errors import ShardError
from datakit.shards import codecs, open_set
from datakit.stream import AugmentParams, ClipParams, images
from datakit.stream.batch import block_size, fields, in_memory_order, lay_out
from datakit.stream.clip import load_clip
from datakit.stream.coded import CodedRaster, DifferenceRaster
from datakit.stream.images import Box

from .rank_main import open_stream
from .test_clip import PLAIN, clip_of_dataset, sample_of

WIDTH, HEIGHT = 71, 22


def unit_normals(rng: np.random.Generator) -> np.ndarray:
    normals = rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[3, 4:9] = np.nan
    return normals


def encoded(layer: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> tuple[bytes, dict[str, Any], Any, Any]:
    """One frame: its bytes, a header that claims `size`, its decoder, and the type it decodes to."""
    rng, header = np.random.default_rng(5), {"key": "clip"}
    if layer == "normals":
        header |= {"normals": {"size": list(size)}}
        return codecs.encode_normals(unit_normals(rng)), header, codecs.decode_normal_differences, "uint16"
    if layer == "instances":
        labels = rng.integers(0, 9, (HEIGHT, WIDTH))
        header |= {"instances": {"size": list(size), "dtype": "uint16"}}
        return codecs.encode_instances(labels, "uint16"), header, codecs.decode_instances, "uint16"
    depth = rng.uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)
    depth[2, 3] = np.nan
    codec = codecs.depth_codec(1.0, 5.0, exact=layer == "float32")
    header |= {"z_depth": codec | {"size": list(size)}}
    return codecs.encode_depth(depth, codec), header, codecs.decode_depth_codes, codecs.depth_dtype(header)


LAYERS = ("log16", "float32", "instances", "normals")


@pytest.mark.parametrize("layer", LAYERS)
def test_given_memory_gets_what_new_memory_gets(layer: str) -> None:
    blob, header, decode, dtype = encoded(layer)
    fresh = decode(blob, header)
    stack = np.full((3, *fresh.shape), 77, dtype)
    assert decode(memoryview(blob), header, stack[1]).base is not None
    assert np.array_equal(stack[1], fresh, equal_nan=layer == "float32")
    assert (stack[[0, 2]] == 77).all()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT - 1), (WIDTH, HEIGHT + 1)])
def test_frames_of_another_size_are_refused(layer: str, size: tuple[int, int]) -> None:
    blob, header, decode, _ = encoded(layer, size)
    with pytest.raises(ShardError, match="clip"):
        decode(blob, header)


@pytest.mark.parametrize("layer", LAYERS)
def test_frames_that_break_off_are_refused(layer: str) -> None:
    blob, header, decode, _ = encoded(layer)
    for end in (0, 3, len(blob) // 2, len(blob) - 4):
        with pytest.raises(ShardError):
            decode(blob[:end], header)


def test_depth_of_another_type_is_refused() -> None:
    blob, _, decode, _ = encoded("float32")
    with pytest.raises(ShardError, match="decoded"):
        decode(blob, encoded("log16")[1])


@pytest.mark.parametrize(("low", "high"), [(0.05, 1000.0), (3.4, 22.0), (2.0, 2.0)])
def test_every_depth_code_is_its_exponential(low: float, high: float) -> None:
    header = {"z_depth": {"codec": "log16", "z_min": low, "z_max": high}}
    depth = codecs.depth_from_codes(np.arange(65536, dtype=np.uint16), header)
    truth = low * (high / low) ** (np.arange(65535) / 65534)
    assert np.isnan(depth[0]) and np.abs(depth[1:] / truth - 1).max() < 1.2e-7


def test_differences_are_summed_up_to_the_pixels_asked_for() -> None:
    rng = np.random.default_rng(1)
    header = {"key": "clip", "normals": {"size": [WIDTH, HEIGHT]}}
    blobs = [codecs.encode_normals(unit_normals(rng)) for _ in range(3)]
    truth = np.stack([codecs.decode_normals(blob, header) for blob in blobs])
    differences = np.stack([codecs.decode_normal_differences(blob, header) for blob in blobs])
    raster = DifferenceRaster(differences, codecs.normals_from_codes, (3,))
    assert raster.shape == truth.shape
    frame, top, left = (
        rng.integers(low, size, 500) for low, size in zip((0, -2, -2), truth.shape, strict=False)
    )
    for size in (2, 4):
        row = np.clip(top[:, None] + np.arange(size), 0, HEIGHT - 1)[:, :, None]
        col = np.clip(left[:, None] + np.arange(size), 0, WIDTH - 1)[:, None, :]
        found = raster.cut(frame, top, left, size)
        assert found.shape == (500, size, size, 3) and np.isnan(found).any()
        assert np.array_equal(found, truth[frame[:, None, None], row, col], equal_nan=True)
    assert np.array_equal(np.asarray(raster), truth, equal_nan=True)
    assert np.array_equal(raster[1], truth[1], equal_nan=True)
    assert np.array_equal(raster[:2, 3, 4], truth[:2, 3, 4], equal_nan=True)


def test_codes_are_read_in_place_by_the_samplers(shard_root: Path) -> None:
    """Rasters in codes cut the windows that `datakit.motion.sampling` asks for."""
    shards, index = clip_of_dataset(shard_root, "alpha")
    view = load_clip(shards, sample_of(index, (0, 3, 7)), ClipParams(size=20)).view
    assert isinstance(view.z_depth, CodedRaster) and view.z_depth.codes.dtype == np.uint16
    assert np.array_equal(view.z_depth.decode(view.z_depth.codes), np.asarray(view.z_depth), equal_nan=True)


def test_frames_shown_as_stored_are_decoded_into_the_batch(shard_root: Path) -> None:
    shards, index = clip_of_dataset(shard_root, "alpha")
    blobs = codecs.unpack(shards.read_members(index, ("rgb.pack",))["rgb.pack"])
    header = codecs.decode_clip_header(shards.read_members(index, ("clip.json",))["clip.json"])
    truth = np.stack([codecs.decode_rgb(blobs[t], header) for t in (1, 4)])
    # A square set of one's own would be larger than the crop of one: the look decides, not the size alone.
    square = PLAIN._replace(blur_sigma=0.0)
    assert images.is_shown_as_stored((36, 36), Box(0, 0, 36, 36), square, 36)
    for other in (square._replace(blur_sigma=0.5), square._replace(hue=0.1)):
        assert not images.is_shown_as_stored((36, 36), Box(0, 0, 36, 36), other, 36)
    assert not images.is_shown_as_stored((48, 36), Box(0, 0, 48, 36), square, 36)
    assert not images.is_shown_as_stored((48, 36), Box(6, 0, 36, 36), square, 36)
    video = np.empty((2, 36, 36, 3), np.uint8)
    view = load_clip(shards, sample_of(index, (1, 4)), ClipParams(size=36), video=video).view
    assert view.video is video and np.abs(view.patch_frames.astype(int) - truth).max() <= 2  # two decoders


def test_square_clips_share_memory_with_their_patches(tmp_path: Path) -> None:
    from datakit.shards import PackParams, pack
    from datakit.worlds import random_world, write_world_scene

    write_world_scene(random_world(3, num_frames=4, size=(32, 32), motion="static"), tmp_path / "w.h5")
    params = PackParams(min_level="none", rgb="jpeg", clip_frames=4)
    pack([tmp_path / "w.h5"], tmp_path / "set", params=params, progress=False)
    shards, whole = open_set(tmp_path / "set"), tuple(range(4))
    plain = load_clip(shards, sample_of(0, whole), ClipParams(size=32)).view
    assert np.shares_memory(plain.video, plain.patch_frames)
    dull = load_clip(shards, sample_of(0, whole, contrast=0.5), ClipParams(size=32)).view
    assert np.array_equal(dull.patch_frames, plain.video) and not np.array_equal(dull.video, plain.video)


@pytest.mark.parametrize("box", [Box(0, 0, 40, 40), Box(5, 3, 20, 20), Box(4, 2, 33, 27), Box(0, 0, 40, 38)])
@pytest.mark.parametrize(
    "look", [{}, {"brightness": 1.2}, {"blur_sigma": 0.8}, {"hue": 0.04, "blur_sigma": 1.5}]
)
def test_painting_is_its_steps_one_after_another(box: Box, look: dict[str, float]) -> None:
    rng, chosen = np.random.default_rng(2), PLAIN._replace(**look)
    frames = rng.integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)
    before, video = frames.copy(), np.full((7, 20, 20, 3), 99, np.uint8)
    matrix = images.paint(frames, box, chosen, video)
    assert (matrix is None) != images.changes_colour(chosen)
    assert np.array_equal(frames, before)
    for frame, shown in zip(frames, video, strict=True):
        expected = images.crop_and_resize(frame, box, 20)
        expected = expected if matrix is None else images.recolour(expected, matrix)
        expected = images.blur(expected, chosen.blur_sigma) if chosen.blur_sigma else expected
        assert np.array_equal(shown, expected)


@pytest.mark.parametrize("sigma", [0.3, 0.9, 2.0])
def test_blur_is_the_gaussian(sigma: float) -> None:
    image = np.random.default_rng(4).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    side = 2 * int(np.ceil(3 * sigma)) + 1
    assert cv2.absdiff(images.blur(image, sigma), cv2.GaussianBlur(image, (side, side), sigma)).max() <= 1


def test_pictures_lie_in_memory_as_decoders_write_them(shard_root: Path) -> None:
    params = ClipParams(clip_frames=3, size=8, num_queries=5)
    table = fields(params)
    arrays = lay_out(np.zeros(block_size(table, 2), np.uint8), table, 2)
    for name, (shape, _) in table.items():
        assert arrays[name].shape == (2, *shape), name
    for name in ("video", "query/patch"):
        assert in_memory_order(name, arrays[name]).flags.c_contiguous
    for number, array in enumerate(arrays.values()):
        array[...] = number % 2
    assert all((array == number % 2).all() for number, array in enumerate(arrays.values()))  # none overlap
    with open_stream(shard_root, augment=AugmentParams.none()) as run:
        held = [next(run) for _ in range(4)]  # the last ones are copies
    for batch in held:
        assert np.moveaxis(batch["video"], -3, -1).flags.c_contiguous
        assert np.moveaxis(batch["query"]["patch"], -3, -1).flags.c_contiguous
