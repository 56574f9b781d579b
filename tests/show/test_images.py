"""Panels: what a browser decodes is the value within one colour step, and unknown is never a value."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from datakit.show import images


def codes_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"
        return np.array(image)


@pytest.mark.parametrize("is_log", [False, True])
def test_depth_reads_back_within_half_a_step(is_log):
    rng = np.random.default_rng(0)
    lo, hi = 0.7, 40.0
    z = np.exp(rng.uniform(np.log(lo), np.log(hi), (30, 50))).astype(np.float32)
    z[3:6, 4:9] = np.nan
    codes = codes_of(images.depth_png(z, (50, 30), lo, hi, is_log))
    unknown = np.isnan(z)
    assert (codes[unknown] >= images.NUM_LEVELS).all()
    assert (codes[~unknown] < images.NUM_LEVELS).all()
    share = codes[~unknown] / (images.NUM_LEVELS - 1)
    back = lo * (hi / lo) ** share if is_log else lo + share * (hi - lo)
    step = 0.5 / (images.NUM_LEVELS - 1)
    limit = back * (np.log(hi / lo) * step * 1.01) if is_log else (hi - lo) * step * 1.01
    assert (np.abs(back - z[~unknown]) <= limit).all()


def test_depth_outside_the_bar_is_clipped_not_wrapped():
    codes = codes_of(images.depth_png(np.array([[0.01, 1e9]], np.float32), (2, 1), 1.0, 2.0, False))
    assert codes.tolist() == [[0, images.NUM_LEVELS - 1]]


def test_palette_of_depth_is_viridis():
    with Image.open(io.BytesIO(images.depth_png(np.array([[1.0, 2.0]]), (2, 1), 1.0, 2.0, False))) as image:
        ends = np.array(image.convert("RGB"))[0]
    ramp = cv2.applyColorMap(np.array([[0, 255]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, :, ::-1]
    np.testing.assert_array_equal(ends, ramp)


def test_instances_keep_their_colour_whatever_else_is_in_the_frame():
    known = np.array([0, 3, 7, 900], np.uint32)
    full = codes_of(images.instances_png(np.array([[0, 3, 7, 900]], np.uint32), (4, 1), known))
    lone = codes_of(images.instances_png(np.array([[7]], np.uint32), (1, 1), known))
    assert full.tolist() == [[0, 1, 2, 3]] and lone.tolist() == [[2]]


def test_instance_that_the_scene_does_not_know_is_hatched():
    known = np.array([0, 3], np.uint32)
    codes = codes_of(images.instances_png(np.array([[2, 4, 3]], np.uint32), (3, 1), known))
    assert (codes[0, :2] >= images.NUM_LEVELS).all() and codes[0, 2] == 1


def test_more_instances_than_colours_never_look_like_background():
    rows = images.colour_rows(np.arange(2000))
    assert rows[0] == 0 and rows[1:].min() == 1 and rows.max() == images.NUM_LEVELS - 1


def test_nearest_takes_the_sample_under_each_new_centre():
    raster = np.arange(12).reshape(2, 6)
    # Centres of a 3-wide grid over 6 samples are 1, 3, 5: the samples that begin there.
    assert images.pick_nearest(raster, (3, 1)).tolist() == [[7, 9, 11]]


def test_flow_colours_follow_the_wheel():
    flow = np.array([[[4.0, 0], [0, 4.0], [-4.0, 0], [0, 0], [2.0, 0], [np.nan, 0]]], np.float32)
    rgb = images.flow_rgb(flow, (6, 1), 4.0)[0]
    assert rgb[0].tolist() == [255, 0, 0], "right is red"
    assert rgb[1].tolist() in ([127, 255, 0], [128, 255, 0]), "down is a quarter on"
    assert rgb[2].tolist() == [0, 255, 255], "left is the opposite of right"
    assert rgb[3].tolist() == [255, 255, 255], "still is white"
    assert np.abs(rgb[4].astype(int) - [255, 127, 127]).max() <= 1, "half the length is half the saturation"
    assert len(set(rgb[5].tolist())) == 1 and rgb[5][0] < 200, "unknown is grey"


def test_normals_map_minus_one_to_one_on_bytes():
    normals = np.array([[[1.0, 0, 0], [0, -1.0, 0], [0, 0, 0], [np.nan] * 3]], np.float32)
    rgb = images.direction_rgb(normals, (4, 1), -1.0)[0]
    assert rgb[0].tolist() == [255, 128, 128] and rgb[1].tolist() == [128, 0, 128]
    assert all(len(set(pixel.tolist())) == 1 for pixel in rgb[2:]), "no direction is grey"


@pytest.mark.parametrize("quality", [60, 95])
def test_jpeg_keeps_rgb_order(quality):
    rgb = np.full((16, 16, 3), (220, 40, 20), np.uint8)
    with Image.open(io.BytesIO(images.jpeg(rgb, quality, full_chroma=False))) as image:
        assert image.format == "JPEG"
        assert np.abs(np.array(image).astype(int) - rgb).max() < 8
