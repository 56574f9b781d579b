"""Photos without an order: what overlaps is measured or read, stored, and used by the stream."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from datakit.covisibility import (
    SUFFIX,
    CovisibilityParams,
    measure_covisibility,
    pack_overlap,
    unpack_overlap,
    write_covisibility,
)
from datakit.errors import ConventionError, FormatError, UsageError
from datakit.scene import open_scene, write_scene
from datakit.shards import PackParams, open_set, pack
from datakit.stream import AugmentParams, ClipParams, Order, stream
from datakit.stream.ledger import Ledger, merge
from datakit.stream.order import choose_covisible
from datakit.stream.sets import take_census
from datakit.worlds import random_world, world_scene_stream
from datakit.worlds.world import make_view

PHOTOS = 12
PARAMS = PackParams(min_level="none")


class Fan:
    """A camera in the middle of the room that turns round once in PHOTOS frames: only neighbours overlap."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        focal = size[0] * 35 / 32
        self.k = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
        self.rate = 2 * np.pi * fps / PHOTOS

    def intrinsics(self, times: np.ndarray) -> np.ndarray:
        return np.tile(self.k, (len(times), 1, 1))

    def world_from_cam(self, times: np.ndarray) -> np.ndarray:
        turn = self.rate * np.asarray(times)
        out = np.tile(np.eye(4), (len(turn), 1, 1))
        ahead = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
        right = np.stack([np.sin(turn), -np.cos(turn), 0 * turn], axis=1)
        down = np.tile([0.0, 0.0, -1.0], (len(turn), 1))
        out[:, :3, :3] = np.stack([right, down, ahead], axis=2)
        out[:, :3, 3] = 0, 0, 3.0
        return out


def write_photos(path: Path, dataset: str = "fan", **changes: Any) -> Path:
    world = random_world(5, num_frames=PHOTOS, size=(48, 36), motion="static")
    view = make_view(Fan((48, 36), world.fps), (48, 36), world.times)
    source = world_scene_stream(replace(world, views={"camera": view}))
    record = replace(source.record, dataset=dataset, time_kind="set", **changes)
    write_scene(path, replace(source, record=record))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packed(scenes: list[Path], out: Path, **more: Any) -> Path:
    pack(scenes, out, params=more.pop("params", PARAMS), progress=False, **more)
    return out


def stored(folder: Path, clip: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    shard_set = open_set(folder)
    header = json.loads(shard_set.read_member(clip, "clip.json"))
    return header, safetensors.numpy.load(shard_set.read_member(clip, "arrays.safetensors"))


def order_of(folder: Path, frames: int, least: float = 0.1, most: float = 1.0) -> Order:
    augment = AugmentParams(set_overlap=(least, most))
    clip = ClipParams(clip_frames=frames, augment=augment)
    return Order(take_census([open_set(folder)]), None, 3, 4, clip)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "fan.h5")


@pytest.fixture(scope="module")
def fan(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed([photos], tmp_path_factory.mktemp("fan") / "set")


def test_a_byte_a_pair_keeps_no_more_overlap_than_there_is() -> None:
    rng = np.random.default_rng(0)
    overlap = rng.uniform(size=(9, 9)).astype(np.float32)
    overlap[2, 3], overlap[4, 5], overlap[5, 4] = np.nan, 1, 1
    codes = pack_overlap(overlap)
    assert codes.dtype == np.uint8 and codes.shape == (36,)
    back = unpack_overlap(codes, 9)
    both = np.nan_to_num(np.minimum(overlap, overlap.T), nan=0)
    off = ~np.eye(9, dtype=bool)
    assert (back == back.T).all() and (np.diag(back) == 1).all()
    assert (back <= both + 1e-6)[off].all() and (back > both - 1 / 255)[off].all()
    assert back[2, 3] == back[3, 2] == 0 and back[4, 5] == 1
    with pytest.raises(UsageError, match="36 codes"):
        unpack_overlap(codes[:-1], 9)


def test_pack_measures_what_the_command_measures(photos: Path, fan: Path, tmp_path: Path) -> None:
    header, arrays = stored(fan)
    with open_scene(photos) as scene:
        found = measure_covisibility(scene)
    np.testing.assert_array_equal(arrays["overlap"], pack_overlap(found.overlap))
    assert header["covisibility"] == found.params and header["covisibility"]["used"] == "depth"
    # With the file beside the scene or elsewhere the sample is the same; only the scene's line names the file.
    write_covisibility(tmp_path / f"fan{SUFFIX}", found, sha256(photos))
    from_file = packed([photos], tmp_path / "set", covisibility=tmp_path)
    assert (from_file / "shard-000000.tar").read_bytes() == (fan / "shard-000000.tar").read_bytes()
    lines = [json.loads((folder / "scenes.jsonl").read_text()) for folder in (fan, from_file)]
    assert [line["covisibility_sha256"] for line in lines] == ["none", sha256(tmp_path / f"fan{SUFFIX}")]


def test_the_file_is_what_is_used_window_by_window(photos: Path, tmp_path: Path) -> None:
    with open_scene(photos) as scene:
        found = measure_covisibility(scene)
    told = replace(found, overlap=np.random.default_rng(0).uniform(size=(PHOTOS, PHOTOS)).astype("f4"))
    write_covisibility(tmp_path / f"fan{SUFFIX}", told, sha256(photos))
    params = PackParams(min_level="none", clip_frames=5, stride=5)
    out = packed([photos], tmp_path / "set", covisibility=tmp_path, params=params)
    packed_photos = set()
    for clip in range(open_set(out).num_clips):
        header, arrays = stored(out, clip)
        photos_here = header["frame_indices"]
        assert photos_here == sorted(photos_here) and len(photos_here) == 5
        part = told.overlap[np.ix_(photos_here, photos_here)]
        np.testing.assert_array_equal(arrays["overlap"], pack_overlap(part))
        packed_photos |= set(photos_here)
    assert packed_photos == set(range(PHOTOS)) and header["window_by"] == "file"


def test_measuring_a_window_is_measuring_the_scene(photos: Path, tmp_path: Path) -> None:
    params = PackParams(min_level="none", clip_frames=5, stride=5)
    out = packed([photos], tmp_path / "set", params=params)
    with open_scene(photos) as scene:
        found = measure_covisibility(scene).overlap
    for clip in range(open_set(out).num_clips):
        header, arrays = stored(out, clip)
        part = found[np.ix_(header["frame_indices"], header["frame_indices"])]
        np.testing.assert_array_equal(arrays["overlap"], pack_overlap(part))
        assert header["window_by"] == "measured" and is_linked(np.minimum(part, part.T) >= 0.1)


def test_bytes_depend_neither_on_workers_nor_on_a_second_run(photos: Path, fan: Path, tmp_path: Path) -> None:
    again = packed([photos], tmp_path / "two", workers=2)
    assert sha256(again / "manifest.json") == sha256(fan / "manifest.json")
    assert sha256(again / "shard-000000.tar") == sha256(fan / "shard-000000.tar")


def test_covisibility_of_other_bytes_or_damaged_stops_before_the_first_clip(
    photos: Path, tmp_path: Path
) -> None:
    with open_scene(photos) as scene:
        found = measure_covisibility(scene)
    place = tmp_path / f"fan{SUFFIX}"
    write_covisibility(place, found, "0" * 64)
    with pytest.raises(ConventionError, match="another scene file"):
        packed([photos], tmp_path / "set", covisibility=tmp_path)
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(FormatError, match="cannot be read"):
        packed([photos], tmp_path / "set", covisibility=tmp_path)
    assert not (tmp_path / "set").exists()


def test_another_covisibility_is_another_set(photos: Path, fan: Path, tmp_path: Path) -> None:
    with open_scene(photos) as scene:
        found = measure_covisibility(scene)
    write_covisibility(tmp_path / f"fan{SUFFIX}", found, sha256(photos))
    from_file = packed([photos], tmp_path / "set", covisibility=tmp_path)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (fan, from_file)]
    assert manifests[0]["plan_sha256"] != manifests[1]["plan_sha256"]


@pytest.mark.parametrize(("frames", "least"), [(3, 0.1), (4, 0.3), (PHOTOS, 0.3)])
def test_chosen_photos_have_the_overlap_that_was_asked_for(
    photos: Path, fan: Path, frames: int, least: float
) -> None:
    with open_scene(photos) as scene:
        found = measure_covisibility(scene).overlap
    both = np.minimum(found, found.T)
    order = order_of(fan, frames, least)
    seen = set()
    for sample in itertools.chain.from_iterable(order.batch(step) for step in range(25)):
        chosen = list(sample.frames)
        assert sample.frames_by == "covisibility" and chosen == sorted(set(chosen)) and len(chosen) > 1
        assert is_linked(both[np.ix_(chosen, chosen)] >= least)
        # Fewer only where the whole neighbourhood is taken.
        left = np.setdiff1d(np.arange(PHOTOS), chosen)
        assert len(chosen) == frames or not (both[np.ix_(chosen, left)] >= least + 1 / 255).any()
        seen.add(sample.frames)
    assert frames == PHOTOS or len(seen) > 5
    by_chance = order_of(fan, frames, 0.0)
    assert frames == PHOTOS or not all(
        is_linked(both[np.ix_(s.frames, s.frames)] >= least)
        for step in range(25)
        for s in by_chance.batch(step)
    )


def is_linked(edges: np.ndarray) -> bool:
    reached = np.zeros(len(edges), bool)
    reached[0] = True
    for _ in edges:
        reached |= edges[reached].any(axis=0)
    return bool(reached.all())


def test_near_copies_can_be_left_out() -> None:
    overlap = np.full((6, 6), 0.5, np.float32)
    overlap[0, 1] = overlap[1, 0] = 0.95
    np.fill_diagonal(overlap, 1)
    drawn = {choose_covisible(overlap, 5, key, (0.1, 0.9)) for key in range(40)}
    assert all(len(chosen) == 5 and not {0, 1} <= set(chosen) for chosen in drawn)
    assert any(0 in chosen for chosen in drawn) and any(1 in chosen for chosen in drawn)


def test_a_photo_that_overlaps_with_none_is_never_alone() -> None:
    overlap = np.eye(8, dtype=np.float32)
    overlap[2, 5] = overlap[5, 2] = 0.4
    assert {choose_covisible(overlap, 4, key, (0.1, 1.0)) for key in range(30)} == {(2, 5)}
    assert all(len(choose_covisible(overlap, 4, key, (0.6, 1.0))) == 1 for key in range(5))


def test_any_step_can_be_asked_for_alone_and_the_parameters_are_in_the_hash(fan: Path) -> None:
    one, two = order_of(fan, 4), order_of(fan, 4)
    assert [s.frames for s in one.batch(17)] == [s.frames for s in two.batch(17)]
    assert one.batch(17)[0].digest() == two.batch(17)[0].digest()
    assert order_of(fan, 4, 0.2).first_hash != one.first_hash != order_of(fan, 4, 0.1, 0.9).first_hash


@pytest.mark.parametrize("points", [0, 256])
def test_without_overlaps_photos_are_drawn_by_chance_and_the_ledger_says_so(
    photos: Path, fan: Path, tmp_path: Path, points: int
) -> None:
    params = PackParams(min_level="none", covisibility_points=points)
    scene = photos if points == 0 else write_photos_without_depth(tmp_path / "blind.h5")
    out = packed([scene], tmp_path / "set", params=params)
    header, arrays = stored(out)
    assert "overlap" not in arrays and "covisibility" not in header
    assert "overlap_offset" not in open_set(out).columns
    for name, folder in (("covisibility", fan), ("chance", out)):
        with stream(
            folder, batch_size=4, clip_frames=4, size=16, num_queries=8, workers=0, num_steps=1
        ) as run:
            list(run)
            ledger = run.ledger
        assert ledger.frames_by == {"fan": {name: 4}}
        back = Ledger.of_json(json.loads(json.dumps(ledger.to_json())))
        assert back.frames_by == ledger.frames_by
        assert merge([ledger, back]).to_json()["frames_by"] == {"fan": {name: 8}}


def write_photos_without_depth(path: Path) -> Path:
    world = random_world(5, num_frames=PHOTOS, size=(48, 36), motion="static")
    source = world_scene_stream(world)
    view = source.record.views["camera"]
    layers = {"rgb": view.layers["rgb"]}
    record = replace(
        source.record, dataset="fan", time_kind="set", views={"camera": replace(view, layers=layers)}
    )
    frames = (replace(f, layers={"rgb": f.layers["rgb"]}) for f in source.frames)
    write_scene(path, replace(source, record=record, frames=frames))
    return path


def test_a_sequence_has_no_overlaps(tmp_path: Path) -> None:
    world = random_world(5, num_frames=4, size=(48, 36), motion="static")
    write_scene(tmp_path / "s.h5", world_scene_stream(world))
    header, arrays = stored(packed([tmp_path / "s.h5"], tmp_path / "set"))
    assert "overlap" not in arrays and "covisibility" not in header


def test_sets_with_and_without_overlaps_are_one_stream(photos: Path, tmp_path: Path) -> None:
    world = random_world(6, num_frames=9, size=(48, 36), motion="static")
    write_scene(tmp_path / "s.h5", world_scene_stream(world))
    mixed = packed([tmp_path / "s.h5", photos], tmp_path / "mixed")
    alone = packed([tmp_path / "s.h5"], tmp_path / "alone")
    census = take_census([open_set(alone), open_set(mixed)])
    known = [census.overlap_codes(row) is not None for row in range(len(census.num_frames))]
    names = [census.datasets[at] for at in census.dataset]
    assert sorted(zip(names, known, strict=True)) == [("fan", True), ("world", False), ("world", False)]


def test_a_file_that_leaves_photos_out_gives_them_no_overlap(photos: Path, tmp_path: Path) -> None:
    with open_scene(photos) as scene:
        some = measure_covisibility(scene, CovisibilityParams(max_frames=6))
    assert some.frame.tolist() != list(range(PHOTOS))
    write_covisibility(tmp_path / f"fan{SUFFIX}", some, sha256(photos))
    out = packed([photos], tmp_path / "set", covisibility=tmp_path)
    overlap = unpack_overlap(stored(out)[1]["overlap"], PHOTOS)
    left_out = np.setdiff1d(np.arange(PHOTOS), some.frame)
    assert (overlap[left_out].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(
        overlap[np.ix_(some.frame, some.frame)], unpack_overlap(pack_overlap(some.overlap), 6)
    )
