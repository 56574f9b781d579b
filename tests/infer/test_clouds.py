from __future__ import annotations

import base64
import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from datakit.errors import QualityError, UsageError
from datakit.infer.cloud import CloudOptions, frame_points, pick_view
from datakit.infer.ply import VERTEX, write_ply
from datakit.infer.viewer import UNKNOWN, ViewerOptions, quantise, write_viewer
from datakit.scene import LayerRecord, open_scene, write_scene
from tests.tiny import SQUARE_Z, WALL_Z, tiny_stream, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("clouds") / "tiny.h5")


def with_confidence(path, low_half):
    """The tiny scene, whose left half is trusted less."""
    stream = tiny_stream()
    view = stream.record.views["cam"]
    layers = {**view.layers, "depth_confidence": LayerRecord((40, 30), "array", "float32")}
    confidence = np.ones((30, 40), np.float32)
    confidence[:, :20] = low_half
    stream.record = replace(stream.record, views={"cam": replace(view, layers=layers)})
    stream.frames = (
        replace(frame, layers={**frame.layers, "depth_confidence": confidence}) for frame in stream.frames
    )
    write_scene(path, stream)
    return path


def points_of(path, **options):
    with open_scene(path) as scene:
        return list(frame_points(scene, pick_view(scene, None), CloudOptions(**options)))


def test_points_lie_on_the_surfaces_in_the_world(tiny):
    for part in points_of(tiny, drop=0):
        still = part.xyz[~part.is_moving]
        assert len(still) and len(part.xyz) > len(still)
        np.testing.assert_allclose(still[:, 2], WALL_Z, atol=1e-6)
        np.testing.assert_allclose(part.xyz[part.is_moving, 2], SQUARE_Z, atol=1e-6)
        # The wall's point under a pixel of the camera that slid by 0.25 a frame: u = 40 x / z + 20.
        left = still[:, 0].min()
        assert left == pytest.approx((0.5 - 20) / 40 * WALL_Z + 0.25 * part.t)


def test_cells_at_depth_edges_are_left_out(tiny):
    everything = sum(len(part.xyz) for part in points_of(tiny, drop=0, edge=0))
    clean = sum(len(part.xyz) for part in points_of(tiny, drop=0))
    assert everything == 4 * 30 * 40 and 0 < everything - clean < 0.4 * everything


def test_the_least_confident_are_left_out(tmp_path):
    path = with_confidence(tmp_path / "trust.h5", low_half=0.2)
    kept = points_of(path, drop=0.5, edge=0)
    assert all((part.confidence == 1).all() for part in kept) and len(kept[0].xyz) == 30 * 20
    assert len(points_of(path, drop=0.0, edge=0)[0].xyz) == 30 * 40


def test_the_budget_holds_and_the_choice_is_repeatable(tiny):
    first, second = (points_of(tiny, most=500) for _ in range(2))
    assert 400 < sum(len(part.xyz) for part in first) <= 500
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.xyz, b.xyz)
    with pytest.raises(UsageError):
        CloudOptions(most=0)


def test_a_scene_without_depth_has_no_points(tmp_path):
    stream = tiny_stream()
    view = stream.record.views["cam"]
    layers = {name: layer for name, layer in view.layers.items() if name != "z_depth"}
    stream = tiny_stream(layers=layers)
    write_scene(tmp_path / "flat.h5", stream)
    with open_scene(tmp_path / "flat.h5") as scene, pytest.raises(QualityError, match="depth"):
        pick_view(scene, None)


def test_ply_is_what_its_header_says(tiny, tmp_path):
    with open_scene(tiny) as scene:
        parts = list(frame_points(scene, pick_view(scene, None), CloudOptions()))
    count = write_ply(tmp_path / "cloud.ply", iter(parts))
    data = (tmp_path / "cloud.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert f"element vertex {count}" in lines and len(body) == count * VERTEX.itemsize == count * 24
    names = [line.split()[1:] for line in lines if line.startswith("property")]
    assert names[:3] == [["float", "x"], ["float", "y"], ["float", "z"]] and ["uchar", "moving"] in names
    # Read the last vertex with nothing of ours.
    x, y, z, r, g, b, confidence, frame, moving = struct.unpack("<3f3BfiB", body[-24:])
    np.testing.assert_allclose([x, y, z], parts[-1].xyz[-1], rtol=1e-6)
    assert [r, g, b] == parts[-1].rgb[-1].tolist() and (confidence, frame) == (1.0, 3)
    assert moving == parts[-1].is_moving[-1] and not list(tmp_path.glob("*.partial"))


def test_codes_of_places():
    xyz = np.array([[0.0, 0, 0], [1, 1, 1], [2, 0, 0], [np.nan, 0, 0]])
    codes = quantise(xyz, np.zeros(3), np.full(3, 1 / 65534))
    assert codes.tolist() == [[0] * 3, [65534] * 3, [UNKNOWN] * 3, [UNKNOWN] * 3]


def payload_of(page):
    text = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)[1]
    return json.loads(text)


def decode(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_viewer_holds_points_tracks_and_cameras(tiny, tmp_path):
    write_viewer(tiny, tmp_path / "a.html", notes=[("</script><script>alert(1)</script>", True)])
    page = (tmp_path / "a.html").read_text()
    payload = payload_of(page)
    box, cloud, tracks = payload["box"], payload["cloud"], payload["tracks"]
    xyz = decode(cloud["xyz"], "<u2").reshape(-1, 3) * box["step"] + np.array(box["low"])
    moving = decode(cloud["moving"], "u1").astype(bool)
    assert len(xyz) == cloud["count"] == len(decode(cloud["slot"], "<u2")) and cloud["left_out"] == 0
    np.testing.assert_allclose(xyz[~moving, 2], WALL_Z, atol=1e-3)
    np.testing.assert_allclose(xyz[moving, 2], SQUARE_Z, atol=1e-3)
    places = decode(tracks["xyz"], "<u2").reshape(tracks["count"], 4, 3)
    steps = np.diff(places[:, :, 1].astype(float) * box["step"][1], axis=1)
    known = (places != UNKNOWN).all(axis=(1, 2))
    assert tracks["count"] > 20 and {round(float(s), 2) for s in steps[known].mean(axis=1)} == {0.0, 0.5}
    assert [pose[3] for pose in payload["poses"]] == [0, 0.25, 0.5, 0.75]
    assert page.count("<script") == 2 and "http" not in re.sub(r'"facts".*', "", page).replace(
        "http-equiv", ""
    )


def test_the_viewer_is_bounded_and_repeatable(tiny, tmp_path):
    options = ViewerOptions(points=300, frames=2, tracks=5)
    first = write_viewer(tiny, tmp_path / "a.html", options).read_bytes()
    assert first == write_viewer(tiny, tmp_path / "b.html", options).read_bytes()
    payload = payload_of(first.decode())
    assert payload["cloud"]["count"] <= 300 and len(payload["times"]) == 2
    assert payload["tracks"]["count"] <= 6
    with pytest.raises(UsageError):
        ViewerOptions(points=0)


def test_far_points_do_not_take_the_precision_of_others(tmp_path):
    stream = tiny_stream()
    frames = []
    for frame in stream.frames:
        z_depth = frame.layers["z_depth"].copy()
        z_depth[0, :3] = 1e6
        frames.append(replace(frame, layers={**frame.layers, "z_depth": z_depth}))
    stream.frames = iter(frames)
    write_scene(tmp_path / "far.h5", stream)
    payload = payload_of(write_viewer(tmp_path / "far.h5", tmp_path / "far.html").read_text())
    assert max(payload["box"]["step"]) < 0.01 and payload["cloud"]["left_out"] > 0
