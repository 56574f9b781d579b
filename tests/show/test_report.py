"""The report: self-contained, complete, safe, bounded, repeatable, and its numbers are the scene's."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datakit import Visibility, open_scene
from datakit.errors import FormatError, UsageError
from datakit.scene import Frame, LayerRecord, SceneStream, encode_png, write_scene
from datakit.show import write_report
from datakit.show.payload import build_payload
from datakit.show.report import embed_json
from datakit.worlds import random_world, write_world_scene
from tests.tiny import tiny_stream, write_tiny

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> {{payload}} \u2028"


class Page(HTMLParser):
    """What a browser would see: every attribute, every script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": [], "h1": []}
        self.tags: list[str] = []
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in self.texts:
            self._inside = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.texts[self._inside][-1] += data

    @property
    def payload(self) -> dict:
        return json.loads(self.texts["script"][0])

    @property
    def policy(self) -> str:
        return next(
            value for _, name, value in self.attributes if name == "content" and "default-src" in value
        )


def page_of(scene: Path, out: Path, *args, **options) -> Page:
    return Page(write_report(scene, out, *args, **options).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def world_scene(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("world") / "world.h5"
    write_world_scene(random_world(5, num_frames=6, size=(64, 48), motion="mixed", num_views=2), path)
    return path


@pytest.fixture(scope="module")
def world_page(world_scene, tmp_path_factory) -> Page:
    return page_of(world_scene, tmp_path_factory.mktemp("page") / "report.html")


def rewrite(path: Path, stream: SceneStream, **changes) -> Path:
    """Write a tiny scene whose scene record has other fields."""
    stream.record = replace(stream.record, **changes)
    write_scene(path, stream)
    return path


def numbers(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def test_nothing_is_loaded_from_elsewhere(world_page):
    loading = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}
    assert [a for a in world_page.attributes if a[1] in loading] == []
    assert "link" not in world_page.tags and "iframe" not in world_page.tags
    _, code = world_page.texts["script"]
    style = world_page.texts["style"][0]
    for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "import(", "WebSocket", "innerHTML", "eval("):
        assert word not in code
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_policy_allows_only_this_files_own_code(world_page):
    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    rules = dict(rule.strip().split(" ", 1) for rule in world_page.policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert rules["script-src"] == source(world_page.texts["script"][1])
    assert rules["style-src"] == source(world_page.texts["style"][0])


def test_every_frame_and_layer_is_there(world_scene, world_page):
    with open_scene(world_scene) as scene:
        assert [one["name"] for one in world_page.payload["views"]] == list(scene.views)
        for one in world_page.payload["views"]:
            view = scene.views[one["name"]]
            assert one["slots"] == list(range(view.num_frames)) and len(one["frames"]) == view.num_frames
            assert {layer["name"] for layer in one["layers"]} == set(view.layers) - {"flow_backward"}
            sizes = {layer["name"]: tuple(layer["shown_size"]) for layer in one["layers"]}
            for frame in one["frames"]:
                assert set(frame) == set(sizes)
                for name, uri in frame.items():
                    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", uri).groups()
                    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
                        image.load()
                        assert image.format.lower() == kind and image.size == sizes[name]


def test_cameras_are_the_scenes(world_scene, world_page):
    with open_scene(world_scene) as scene:
        for one in world_page.payload["views"]:
            view = scene.views[one["name"]]
            np.testing.assert_array_equal(np.reshape(one["world_from_cam"], (-1, 4, 4)), view.world_from_cam)
            np.testing.assert_array_equal(np.reshape(one["intrinsics"], (-1, 3, 3)), view.intrinsics)
            np.testing.assert_array_equal(one["times"], view.times)
            np.testing.assert_allclose(one["path"], view.world_from_cam[:, :3, 3], atol=1e-5)


def test_tracks_are_the_scenes(world_scene, world_page):
    seen = set()
    with open_scene(world_scene) as scene:
        for one in world_page.payload["views"]:
            tracks, frames = one["tracks"], len(one["slots"])
            source = np.array(tracks["source_slot"])
            assert len(source) > 20 and len(set(tracks["instance"])) > 2 and len(set(source)) == 3
            uv = np.array([row[slot] for row, slot in zip(tracks["uv_px"], source, strict=True)])
            for slot in range(frames):
                want = scene.track(one["name"], uv, source, slot)
                state = np.array([int(row[slot]) for row in tracks["state"]])
                # The page's pixels are rounded to 1e-3, which may tip a point that lies right on a limit.
                assert (state != want.state).mean() <= 0.02
                seen |= set(state.tolist())
                for name, value, digits in (
                    ("uv_px", want.uv_px, 2e-2),
                    ("points_world", want.points_world, 2e-3),
                ):
                    rows = [row[slot] for row in tracks[name]]
                    known = np.array([row is not None for row in rows])
                    assert (known != np.isfinite(value).all(axis=-1)).mean() <= 0.02
                    known &= np.isfinite(value).all(axis=-1)
                    got = np.array([row for row, k in zip(rows, known, strict=True) if k])
                    error = np.linalg.norm(got - value[known], axis=-1)
                    assert np.median(error) <= digits / 10 and np.quantile(error, 0.97) <= digits
    assert {Visibility.VISIBLE, Visibility.OCCLUDED, Visibility.OUTSIDE} <= seen


def test_cloud_lies_on_the_scenes_surfaces(tmp_path):
    page = page_of(write_tiny(tmp_path / "tiny.h5"), tmp_path / "report.html")
    (cloud,) = page.payload["clouds"]
    fixed = numbers(cloud["fixed"], -1, 3)
    assert len(fixed) > 1000
    np.testing.assert_allclose(fixed[:, 2], 10.0, atol=1e-5, err_msg="the wall")
    moving = numbers(cloud["moving"], -1, 4, 3)
    assert len(moving) > 50
    np.testing.assert_allclose(moving[..., 2], 5.0, atol=1e-5, err_msg="the square")
    np.testing.assert_allclose(np.diff(moving[..., 1], axis=1), 0.5, atol=1e-5, err_msg="its step a frame")
    np.testing.assert_allclose(np.diff(moving[..., 0], axis=1), 0.0, atol=1e-5)
    rgb = np.frombuffer(base64.b64decode(cloud["moving_rgb"]), np.uint8).reshape(-1, 3)
    assert len(rgb) == len(moving) and (rgb[:, 2] == 200).all(), "colours are those of the square"


def test_points_of_unknown_motion_are_held_to_their_frame(tmp_path):
    stream = tiny_stream()
    motion = replace(stream.record.motion, instance_motion=np.array([1, 0], np.uint8))
    motion.world_from_instance[:, 1] = np.nan
    page = page_of(rewrite(tmp_path / "tiny.h5", stream, motion=motion), tmp_path / "report.html")
    (cloud,) = page.payload["clouds"]
    assert cloud["moving"] == ""
    points, slots = numbers(cloud["momentary"], -1, 3), np.array(cloud["momentary_slot"])
    assert len(points) == len(slots) > 50 and set(slots) == {0, 1, 2, 3}
    np.testing.assert_allclose(points[:, 2], 5.0, atol=1e-5)
    assert np.abs(points[:, 0]).max() <= 1 + 1e-5, "the square's own width, though the camera moves"


TEXTS = ("licence", "citation", "source_conventions", "metadata", "instance", "frame", "certificate")


@pytest.mark.parametrize("where", TEXTS)
def test_hostile_text_stays_text(tmp_path, where):
    stream, certificate = tiny_stream(), None
    if where == "metadata":
        changes = {"metadata": {HOSTILE: [HOSTILE]}}
    elif where == "instance":
        changes = {"motion": replace(stream.record.motion, instance_names=(HOSTILE, "square"))}
    elif where == "frame":
        view = replace(stream.record.views["cam"], frame_names=tuple(f"{HOSTILE}{t}" for t in range(4)))
        changes = {"views": {"cam": view}}
    elif where == "certificate":
        changes, certificate = {}, {"verdict": HOSTILE, "checks": [{"name": HOSTILE, "extra": {HOSTILE: 1}}]}
    else:
        changes = {where: HOSTILE}
    page = page_of(rewrite(tmp_path / "tiny.h5", stream, **changes), tmp_path / "report.html", certificate)
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert HOSTILE in json.dumps(page.payload, ensure_ascii=False).replace('\\"', '"'), (
        "and it is still shown"
    )


def test_hostile_title_is_escaped():
    from datakit.show.report import render_page

    page = Page(render_page({"a": 1}, HOSTILE))
    assert page.tags.count("script") == 2 and page.texts["title"] == [HOSTILE] == page.texts["h1"]
    assert page.payload == {"a": 1}


def test_certificate_is_carried_whole(tmp_path):
    scene = write_tiny(tmp_path / "tiny.h5")
    certificate = {
        "verdict": "warn",
        "checks": [{"name": "x", "value": float("nan"), "new": {"field": [1, None]}}],
    }
    page = page_of(scene, tmp_path / "report.html", certificate)
    certificate["checks"][0]["value"] = None
    assert page.payload["certificate"] == certificate
    assert page_of(scene, tmp_path / "none.html").payload["certificate"] is None


def test_same_scene_same_bytes_and_seed_matters(world_scene, tmp_path):
    first, again, other = (
        write_report(world_scene, tmp_path / f"{k}.html", seed=seed).read_bytes()
        for k, seed in enumerate((0, 0, 1))
    )
    assert first == again and first != other


def only(stream: SceneStream, *layers: str) -> SceneStream:
    """Drop every other layer of a tiny stream."""
    view = stream.record.views["cam"]
    view = replace(view, layers={name: view.layers[name] for name in layers})

    def frames() -> Iterator[Frame]:
        for frame in stream.frames:
            yield replace(frame, layers={name: frame.layers[name] for name in layers})

    return SceneStream(replace(stream.record, views={"cam": view}), frames(), stream.sources)


@pytest.mark.parametrize("layers", [("rgb",), ("z_depth",), ("rgb", "z_depth"), ("rgb", "instances")])
def test_scenes_with_few_layers(tmp_path, layers):
    write_scene(tmp_path / "tiny.h5", only(tiny_stream(), *layers))
    page = page_of(tmp_path / "tiny.h5", tmp_path / "report.html")
    (one,) = page.payload["views"]
    assert tuple(layer["name"] for layer in one["layers"]) == layers
    assert bool(one["tracks"]["state"]) == ("z_depth" in layers)
    assert bool(page.payload["clouds"][0]["fixed"]) == ("z_depth" in layers)


def test_single_frame(tmp_path):
    page = page_of(write_tiny(tmp_path / "tiny.h5", num_frames=1), tmp_path / "report.html")
    (one,) = page.payload["views"]
    assert one["slots"] == [0] and len(one["frames"]) == 1 and set(one["tracks"]["state"]) == {"1"}
    assert len(numbers(page.payload["clouds"][0]["fixed"], -1, 3)) > 500


def test_photo_set(tmp_path):
    page = page_of(
        rewrite(tmp_path / "tiny.h5", tiny_stream(), time_kind="set", scale="sfm"), tmp_path / "r.html"
    )
    assert page.payload["tags"]["time_kind"] == "set"
    assert page.payload["views"][0]["layers"][1]["unit"] == page.payload["tags"]["unit"] == "units (sfm)"


def test_unknown_poses_are_null_and_start_no_track(tmp_path):
    stream = tiny_stream()
    view = stream.record.views["cam"]
    pose, known = view.world_from_cam.copy(), np.array([False, True, False, True])
    pose[~known] = np.nan
    views = {"cam": replace(view, world_from_cam=pose, pose_is_known=known)}
    page = page_of(rewrite(tmp_path / "tiny.h5", stream, views=views), tmp_path / "report.html")
    (one,) = page.payload["views"]
    assert [matrix is None for matrix in one["world_from_cam"]] == [True, False, True, False]
    assert [centre is None for centre in one["path"]] == [True, False, True, False]
    assert set(one["tracks"]["source_slot"]) == {1, 3}
    assert {row[0] for row in one["tracks"]["state"]} == {str(int(Visibility.UNKNOWN))}
    assert one["num_known_poses"] == 2


def test_no_pose_at_all(tmp_path):
    stream = tiny_stream()
    view = stream.record.views["cam"]
    views = {"cam": replace(view, world_from_cam=np.full((4, 4, 4), np.nan), pose_is_known=np.zeros(4, bool))}
    page = page_of(rewrite(tmp_path / "tiny.h5", stream, views=views), tmp_path / "report.html")
    (one,) = page.payload["views"]
    assert one["world_from_cam"] == [None] * 4 and one["tracks"]["state"] == []
    assert page.payload["clouds"][0]["fixed"] == ""


def test_depth_on_its_own_grid(tmp_path):
    stream = tiny_stream()
    view = stream.record.views["cam"]
    half = np.diag([0.5, 0.5, 1.0]) @ view.intrinsics
    layers = {
        **view.layers,
        "z_depth": LayerRecord((20, 15), "array", "float32", intrinsics=half, depth_kind="sensor"),
    }
    frames = (
        replace(f, layers={**f.layers, "z_depth": f.layers["z_depth"][::2, ::2]}) for f in stream.frames
    )
    record = replace(stream.record, views={"cam": replace(view, layers=layers)})
    write_scene(tmp_path / "tiny.h5", SceneStream(record, frames, stream.sources))
    page = page_of(tmp_path / "tiny.h5", tmp_path / "report.html")
    (one,) = page.payload["views"]
    depth = next(layer for layer in one["layers"] if layer["name"] == "z_depth")
    assert depth["size"] == [20, 15] and depth["kind"] == "sensor"
    np.testing.assert_array_equal(np.reshape(depth["intrinsics"], (-1, 3, 3)), half)
    # Query pixels are centres of depth samples, on the colour grid: odd whole numbers.
    uv = np.array(
        [row[s] for row, s in zip(one["tracks"]["uv_px"], one["tracks"]["source_slot"], strict=True)]
    )
    np.testing.assert_allclose(uv % 2, 1.0, atol=1e-3)


def test_frames_are_thinned_evenly_and_budget_shrinks_panels(world_scene, tmp_path):
    page = page_of(world_scene, tmp_path / "few.html", max_frames=3)
    assert [one["slots"] for one in page.payload["views"]] == [[0, 2, 5], [0, 2, 5]]
    path = tmp_path / "wide.h5"
    write_tiny(path, size=(400, 300))
    sizes, spent = [], []
    for budget in (10_000_000, 60_000, 1):
        with open_scene(path) as scene:
            one = build_payload(scene, None, 4, budget, 0)["views"][0]
        sizes.append(one["layers"][0]["shown_size"])
        spent.append(sum(len(uri.split(",")[1]) for frame in one["frames"] for uri in frame.values()))
    assert sizes[0] == [400, 300] and 64 < sizes[1][0] < 400 and sizes[2] == [64, 48]
    assert spent[1] <= 60_000


def test_budget_holds_where_the_middle_frame_is_no_guide(tmp_path):
    stream = only(tiny_stream(size=(320, 240)), "rgb")
    rng = np.random.default_rng(0)

    def frames() -> Iterator[Frame]:
        for frame in stream.frames:
            rgb = (
                np.zeros((240, 320, 3), np.uint8) if frame.index == 2 else rng.integers(0, 256, (240, 320, 3))
            )
            yield replace(frame, layers={"rgb": encode_png(rgb.astype(np.uint8))})

    write_scene(tmp_path / "noise.h5", SceneStream(stream.record, frames(), stream.sources))
    with open_scene(tmp_path / "noise.h5") as scene:
        one = build_payload(scene, None, 4, 60_000, 0)["views"][0]
    assert sum(len(frame["rgb"].split(",")[1]) for frame in one["frames"]) <= 60_000
    assert one["layers"][0]["shown_size"][0] > 64


def test_failure_leaves_the_old_report_alone(tmp_path, monkeypatch):
    out = tmp_path / "out" / "report.html"
    out.parent.mkdir()
    out.write_text("old")
    (tmp_path / "bad.h5").write_bytes(b"not a scene")
    with pytest.raises(FormatError):
        write_report(tmp_path / "bad.h5", out)
    assert out.read_text() == "old" and list(out.parent.iterdir()) == [out]

    def no_disk(*_: object) -> None:
        raise OSError("No space left on device")

    scene = write_tiny(tmp_path / "tiny.h5")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr("datakit.show.report.os.fsync", no_disk)
        write_report(scene, out)
    assert out.read_text() == "old" and list(out.parent.iterdir()) == [out]
    write_report(scene, out)
    assert out.read_text().startswith("<!DOCTYPE html>") and list(out.parent.iterdir()) == [out]


def test_wrong_calls_say_what_to_do(tmp_path):
    scene = write_tiny(tmp_path / "tiny.h5")
    with pytest.raises(UsageError, match="directory"):
        write_report(scene, tmp_path)
    with pytest.raises(UsageError, match="max_frames"):
        write_report(scene, tmp_path / "r.html", max_frames=0)


def test_embedded_json_survives_any_text():
    value = {"a": HOSTILE, "b": [float("inf"), 1.5, None], "c": "\u2029&"}
    text = embed_json(value)
    assert "<" not in text and text.isascii()
    assert json.loads(text) == {"a": HOSTILE, "b": [None, 1.5, None], "c": "\u2029&"}
