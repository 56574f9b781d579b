"""Photos without an order in time: those of one window show one place, whatever their numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from datakit.covisibility import SUFFIX, measure_covisibility, unpack_overlap, write_covisibility
from datakit.scene import open_scene, write_scene
from datakit.shards import PackParams, PackReport, decode_rgb, open_set, pack, trace, unpack, verify
from datakit.shards.layout import FORMAT_VERSION, sha256_json
from datakit.shards.overlaps import pair_links
from datakit.stream import stream
from datakit.worlds import random_world, world_scene_stream
from datakit.worlds.world import make_view
from tests.tiny import tiny_stream

SIZE = (48, 36)
#: Half of the angle that a photo shows is 25 degrees: photos 60 degrees apart have nothing in common.
STEP = np.radians(30)


class Turntable:
    """A camera in the middle of the room; photo t looks towards angle[t]."""

    def __init__(self, angle: Sequence[float], fps: float) -> None:
        focal = SIZE[0] * 35 / 32
        self.k = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1.0]])
        self.angle, self.fps = np.asarray(angle, float), fps

    def intrinsics(self, times: np.ndarray) -> np.ndarray:
        return np.tile(self.k, (len(times), 1, 1))

    def world_from_cam(self, times: np.ndarray) -> np.ndarray:
        photo = np.round(np.asarray(times) * self.fps).astype(int)
        turn = self.angle[
            photo % len(self.angle)
        ]  # flow asks for one photo before the first and after the last
        out = np.tile(np.eye(4), (len(turn), 1, 1))
        ahead = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
        right = np.stack([np.sin(turn), -np.cos(turn), 0 * turn], axis=1)
        down = np.tile([0.0, 0.0, -1.0], (len(turn), 1))
        out[:, :3, :3] = np.stack([right, down, ahead], axis=2)
        out[:, :3, 3] = 0, 0, 3.0
        return out


def write_photos(path: Path, angle: Sequence[float], layers: Sequence[str] = (), **changes: Any) -> Path:
    """Write photos that look towards these angles; `layers` are kept of the world's, all where there is none."""
    world = random_world(5, num_frames=len(angle), size=SIZE, motion="static")
    camera = make_view(Turntable(angle, world.fps), SIZE, world.times)
    source = world_scene_stream(replace(world, views={"camera": camera}))
    view = source.record.views["camera"]
    kept = {name: layer for name, layer in view.layers.items() if not layers or name in layers}
    record = replace(
        source.record,
        id=path.stem,
        dataset="photos",
        time_kind="set",
        views={"camera": replace(view, layers=kept)},
    )
    frames = (replace(f, layers={name: f.layers[name] for name in kept}) for f in source.frames)
    write_scene(path, replace(source, record=replace(record, **changes), frames=frames))
    return path


def packed(scenes: list[Path], out: Path, workers: int = 1, **params: Any) -> PackReport:
    chosen = PackParams(**({"min_level": "none", "difficulty_tracks": 8} | params))
    return pack(scenes, out, params=chosen, workers=workers, progress=False)


def headers(folder: Path) -> list[dict[str, Any]]:
    shard_set = open_set(folder)
    return [json.loads(shard_set.read_member(i, "clip.json")) for i in range(shard_set.num_clips)]


def photos_of(folder: Path) -> list[list[int]]:
    return [header["frame_indices"] for header in headers(folder)]


def files_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


#: Even photos look one way, odd ones the other.
TWO_PLACES = [np.pi * (t % 2) + 0.05 * (t // 2) for t in range(8)]
#: Places on an arc of 210 degrees, numbered at random.
ORDER = [5, 0, 3, 7, 1, 6, 2, 4]
ARC = [STEP * ORDER.index(t) for t in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    return write_photos(folder / "two.h5", TWO_PLACES)


@pytest.fixture(scope="module")
def arc(folder: Path) -> Path:
    return write_photos(folder / "arc.h5", ARC)


@pytest.fixture(scope="module")
def two_set(two: Path, folder: Path) -> Path:
    packed([two], folder / "two_set", clip_frames=4)
    return folder / "two_set"


def test_photos_of_two_places_that_alternate_by_number_are_separated(two_set: Path) -> None:
    assert photos_of(two_set) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    shard_set = open_set(two_set)
    assert [shard_set.key(i) for i in range(2)] == ["photos-two-camera-000000", "photos-two-camera-000001"]
    assert shard_set.columns["start_frame"].tolist() == [0, 1]
    assert shard_set.columns["num_frames"].tolist() == [4, 4]


def test_every_member_is_that_of_its_photo(two: Path, two_set: Path) -> None:
    shard_set = open_set(two_set)
    with open_scene(two) as scene:
        view = scene.views["camera"]
        for i, header in enumerate(headers(two_set)):
            photos = header["frame_indices"]
            assert header["provenance"]["frame_names"] == [view.frame_names[t] for t in photos]
            assert header["window_by"] == "measured"
            data = shard_set.read_members(i, ["arrays.safetensors", "rgb.pack"])
            arrays = safetensors.numpy.load(bytes(data["arrays.safetensors"]))
            np.testing.assert_array_equal(arrays["world_from_cam"], view.world_from_cam[photos])
            np.testing.assert_array_equal(arrays["times"], view.times[photos])
            np.testing.assert_array_equal(arrays["motion_index"] >= 0, view.motion_index[photos] >= 0)
            for image, t in zip(unpack(data["rgb.pack"]), photos, strict=True):
                np.testing.assert_array_equal(decode_rgb(image, header), view.rgb(t))
            overlap = unpack_overlap(arrays["overlap"], 4)
            assert (overlap >= 0.1).all()  # all photos of a window meet
            assert set(arrays["difficulty_uv"][:, 0].tolist()) <= {0, 1, 2, 3}
            # All stand still and look from one point: a track starts where its photo says.
            assert (
                np.nanmax(arrays["difficulty_motion"]) == 0
                and np.nanmax(arrays["difficulty_parallax"]) < 1e-3
            )


def test_photos_on_an_arc_are_cut_into_two_stretches_each_photo_once(arc: Path, tmp_path: Path) -> None:
    report = packed([arc], tmp_path / "set", clip_frames=4)
    assert sorted(photos_of(tmp_path / "set")) == sorted([sorted(ORDER[:4]), sorted(ORDER[4:])])
    assert report.num_frames == 8 and report.set_windows == (("photos/arc/camera", "measured"),)


def test_windows_overlap_where_the_stride_says_so(arc: Path, tmp_path: Path) -> None:
    packed([arc], tmp_path / "set", clip_frames=4, stride=2)
    found = sorted(photos_of(tmp_path / "set"))
    assert found == sorted(sorted(ORDER[first : first + 4]) for first in (0, 2, 4))
    packed([arc], tmp_path / "wide", clip_frames=4, stride=9)  # of a set, no photo is left out
    assert sorted(photos_of(tmp_path / "wide")) == sorted([sorted(ORDER[:4]), sorted(ORDER[4:])])


@pytest.mark.slow  # starts processes
def test_bytes_depend_on_neither_workers_nor_order_nor_a_stop(
    two: Path, arc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed([two, arc], tmp_path / "one", clip_frames=3)
    expected = files_of(tmp_path / "one")
    packed([arc, two], tmp_path / "many", clip_frames=3, workers=2)
    assert files_of(tmp_path / "many") == expected
    with monkeypatch.context() as patch:
        stop_at_third_clip(patch)
        with pytest.raises(KeyboardInterrupt):
            packed([two, arc], tmp_path / "stopped", clip_frames=3)
    with monkeypatch.context() as patch:  # windows chosen before the stop are not chosen again
        patch.setattr("datakit.shards.work.set_windows", lambda *_: pytest.fail("chosen again"))
        packed([two, arc], tmp_path / "stopped", clip_frames=3)
    assert files_of(tmp_path / "stopped") == expected


def stop_at_third_clip(patch: pytest.MonkeyPatch) -> None:
    from datakit.shards import work

    made, make_clip = [], work.make_clip

    def stop(*args: Any) -> Any:
        made.append(args)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make_clip(*args)

    patch.setattr(work, "make_clip", stop)


def test_verify_and_trace_follow_chosen_photos(two: Path, two_set: Path) -> None:
    assert verify(two_set) == []
    with open_scene(two) as scene:
        names = scene.views["camera"].frame_names
    assert trace(two_set, "photos-two-camera-000001")["clip"] == {
        "view": "camera",
        "frames": [1, 3, 5, 7],
        "frame_names": [names[t] for t in (1, 3, 5, 7)],
        "window_by": "measured",
    }


def test_the_stream_draws_photos_that_meet(two_set: Path) -> None:
    with stream(two_set, batch_size=4, clip_frames=4, size=16, num_queries=8, workers=0, num_steps=3) as run:
        for batch in run:
            assert batch["frame_mask"].all()  # every clip has as many photos as asked for
        assert run.ledger.frames_by == {"photos": {"covisibility": 12}}


def test_a_file_is_asked_first_then_pairs_then_the_photos(two: Path, folder: Path, tmp_path: Path) -> None:
    place = [0, 0, 1, 1, 0, 0, 1, 1]  # what the pairs say; the photos show something else
    rows = [[[o, 5.0] for o in range(8) if o != t and place[o] == place[t]] for t in range(8)]
    paired = write_photos(tmp_path / "two.h5", TWO_PLACES, metadata={"covisibility": {"rows": rows}})
    report = packed([paired], tmp_path / "pairs", clip_frames=4)
    assert photos_of(tmp_path / "pairs") == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert report.set_windows == (("photos/two/camera", "pairs"),)
    with open_scene(paired) as scene:
        found = measure_covisibility(scene)
    told = np.where(np.arange(8)[:, None] // 5 == np.arange(8) // 5, 0.5, 0.09).astype(np.float32)
    digest = hashlib.sha256(paired.read_bytes()).hexdigest()
    write_covisibility(tmp_path / f"two{SUFFIX}", replace(found, overlap=told), digest)
    report = packed([paired], tmp_path / "file", clip_frames=5)
    # Less than a tenth in common is no link: else three of the five would be packed again with the other three.
    assert photos_of(tmp_path / "file") == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert [header["window_by"] for header in headers(tmp_path / "file")] == ["file"] * 2
    # A call on the finished set says the same, from its manifest.
    assert packed([paired], tmp_path / "file", clip_frames=5) == replace(report, num_made=0)


@pytest.mark.parametrize("points", [0, 256])
def test_without_covisibility_windows_follow_the_file_order_and_say_so(
    two: Path, folder: Path, tmp_path: Path, points: int
) -> None:
    scene = two if points == 0 else write_photos(tmp_path / "two.h5", TWO_PLACES, layers=["rgb"])
    report = packed([scene], tmp_path / "set", clip_frames=3, covisibility_points=points)
    assert photos_of(tmp_path / "set") == [[0, 1, 2], [3, 4, 5], [5, 6, 7]]
    assert report.set_windows == (("photos/two/camera", "order"),)
    manifest = open_set(tmp_path / "set").manifest
    assert manifest["set_windows"] == [
        {"dataset": "photos", "id": "two", "view": "camera", "by": "order", "clips": 3}
    ]
    packed([scene], tmp_path / "wide", clip_frames=3, stride=5, covisibility_points=points)
    assert photos_of(tmp_path / "wide") == photos_of(tmp_path / "set")  # no photo is left out


def test_a_set_that_fits_one_window_and_a_video_are_as_they_were(two: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "video.h5", tiny_stream(num_frames=8))
    params = PackParams(min_level="none", clip_frames=8, difficulty_tracks=8)
    for scenes, name, length in (([two], "set", 8), ([tmp_path / "video.h5"], "video", 3)):
        report = packed(scenes, tmp_path / name, clip_frames=length)
        manifest = open_set(tmp_path / name).manifest
        assert "set_windows" not in manifest and report.set_windows == ()
        assert all("window_by" not in header for header in headers(tmp_path / name))
        lines = [json.loads(x) for x in (tmp_path / name / "scenes.jsonl").read_text().splitlines()]
        # The plan's hash is made of what it was always made of, so that finished sets are known again.
        plan = {
            "version": FORMAT_VERSION,
            "params": replace(params, clip_frames=length).to_dict(),
            "scenes": lines,
            "refused": [],
        }
        assert manifest["plan_sha256"] == sha256_json(plan)
        if name == "set":  # what was stopped with windows of another kind is not gone on with
            packed([two], tmp_path / "cut", clip_frames=4)
            other = plan | {"params": replace(params, clip_frames=4).to_dict()}
            assert open_set(tmp_path / "cut").manifest["plan_sha256"] != sha256_json(other)
    assert photos_of(tmp_path / "set") == [list(range(8))]
    assert photos_of(tmp_path / "video") == [[0, 1, 2], [3, 4, 5], [5, 6, 7]]


def test_long_sets_are_planned_in_stretches(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datakit.shards.overlaps._MOST_PHOTOS", 4)
    packed([two], tmp_path / "set", clip_frames=2)
    assert photos_of(tmp_path / "set") == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_points_are_shared_out_over_many_photos(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datakit.shards import overlaps

    asked = []
    measure = overlaps.measure_covisibility
    monkeypatch.setattr(overlaps, "measure_covisibility", lambda *a: asked.append(a[1].points) or measure(*a))
    monkeypatch.setattr(overlaps, "_PLAN_POINTS", 800)
    with open_scene(two) as scene:
        params = PackParams(clip_frames=4)
        by, windows = overlaps.set_windows(scene, "camera", params, None, "")
    assert asked == [100] and by == "measured"
    assert windows == [(0, (0, 2, 4, 6)), (1, (1, 3, 5, 7))]


def test_pairs_are_weights_the_same_in_both_directions() -> None:
    links = pair_links({"rows": [[[1, 10.0], [2, 0.001]], [[0, 5.0]], []]}, 3)
    assert links is not None and links.tolist() == [[0, 255, 1], [255, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    "listed",
    [
        None,
        {},
        [],
        {"rows": [[], []]},  # other photos
        {"rows": [[], [], []]},
        {"rows": "abc"},
        {"rows": [[[1]], [], []]},
        {"rows": [[["x", 1]], [], []]},
        {"rows": [[[3, 1.0]], [[-1, 1.0]], [[2, 1.0]]]},  # not there, or itself
        {"rows": [[[1, 0.0]], [[0, -1.0]], [[0.5, 1.0]]]},
        {"rows": [None, 1, 2]},
    ],
)
def test_what_is_no_list_of_pairs_is_none(listed: Any) -> None:
    assert pair_links(listed, 3) is None


def test_pack_says_which_sets_follow_the_file_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datakit.cli import main

    scene = write_photos(tmp_path / "two.h5", TWO_PLACES, layers=["rgb"])
    assert main(["pack", str(scene), str(tmp_path / "set"), "--clip-frames", "3", "--min-level", "none"]) == 0
    assert "in file order: photos/two/camera" in capsys.readouterr().out
