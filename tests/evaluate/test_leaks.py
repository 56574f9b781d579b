from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from datakit.errors import LayoutError, QualityError, UsageError
from datakit.evaluate.images_hash import (
    FrameHashes,
    HashParams,
    count_bits,
    hash_frame,
    near_pairs,
    spread_frames,
)
from datakit.evaluate.leaks import find_leaks, identity, items_of, require_no_leaks
from datakit.shards import PackParams, pack
from datakit.worlds import write_world_scene
from tests.evaluate import native
from tests.tiny import write_tiny

# --- names


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("scannet", "scene0707_02"), ("scannet", "scene0707_00")),  # another visit to the same rooms
        (("scannet", "scene0707_02"), (None, "scene0707_00")),
        (
            ("waymo", "segment-9142545919543484617_86_000_106_000_with_camera_labels"),
            ("drivetrack", "tapvid3d_9142545919543484617_86_000_106_000_2_5AKc-TYQochsSWXpv376cA"),
        ),
        (("waymo", "9142545919543484617_86_000_106_000"), (None, "9142545919543484617_86_000_106_000")),
        (("dynamic_replica", "009850-3_obj_source_left"), ("dynamic_replica", "009850-3_obj_source_right")),
        (("dr", "009850-3_obj"), ("dynamic_replica", "009850-3_obj_source_right")),
        (("co3dv2", "apple-110_13051_23361"), ("co3d", "110_13051_23361")),
        (("co3dv2", "apple-110_13051_23361"), (None, "110_13051_23361")),
        (("kitti_raw", "2011_09_26_drive_0002_sync"), ("kitti", "2011_09_26_drive_0002")),
        (("bonn", "rgbd_bonn_balloon2"), ("bonn", "balloon2")),
        (("adt", "Apartment_release_meal_seq136_8"), ("adt", "Apartment_release_meal_seq136_0")),
        (("kubric", "movi_e_17"), ("kubric", "MOVI_E_17.npz")),
        (("sintel", "alley_2"), ("sintel", "alley_2")),
    ],
)
def test_same_capture(ours, theirs):
    assert identity(*ours) & identity(*theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("scannet", "scene0707_00"), ("scannet", "scene0708_00")),
        (("waymo", "9142545919543484617_86_000_106_000"), ("waymo", "9142545919543484617_106_000_126_000")),
        (("dynamic_replica", "009850-3_obj_source_left"), ("dynamic_replica", "009851-3_obj_source_left")),
        (("co3dv2", "apple-110_13051_23361"), ("co3dv2", "apple-110_13051_23362")),
        (("kitti", "2011_09_26_drive_0002_sync"), ("kitti", "2011_09_26_drive_0005_sync")),
        (("adt", "Apartment_release_meal_seq136_8"), ("adt", "Apartment_release_meal_seq137_8")),
    ],
)
def test_other_captures(ours, theirs):
    assert not identity(*ours) & identity(*theirs)


def test_lists_that_come_with_the_package():
    spaces = items_of("scannet:test")
    assert len(spaces) == 100 and items_of("scannet") == spaces
    assert {key for item in spaces for key in item.keys} >= {"scannet:scene0707", "scannet:scene0806"}
    assert len(items_of("sintel:14")) == 14 and len(items_of("sintel")) == 23
    assert len(items_of("kitti:val")) == 13 and len(items_of("bonn")) == 5
    with pytest.raises(UsageError):
        items_of("sintel:15")
    with pytest.raises(LayoutError, match="scannet:test"):
        items_of("nowhere")


def test_equal_ids_of_two_datasets_are_two_scenes(tmp_path):
    (tmp_path / "a.txt").write_text("kubric/0001\nblendedmvs/5\n")
    (tmp_path / "b.txt").write_text("sintel/0001\n")
    (tmp_path / "bare.txt").write_text("0001\n")
    a, b, bare = (items_of(str(tmp_path / f"{name}.txt")) for name in ("a", "b", "bare"))
    assert not find_leaks(a, b).leaks
    assert [leak.ours for leak in find_leaks(a, bare).leaks] == ["kubric/0001"]
    assert find_leaks(a, a).scenes() == ["blendedmvs/5", "kubric/0001"]


# --- hashes


def test_counting_bits_without_numpy_2(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**63, (50, 3), np.uint64) * np.uint64(2)
    expected = [bin(int(word)).count("1") for word in words.ravel()]
    assert count_bits(words).ravel().tolist() == expected
    monkeypatch.delattr(np, "bitwise_count")
    assert count_bits(words).ravel().tolist() == expected


def test_near_pairs_are_all_pairs(monkeypatch):
    import datakit.evaluate.images_hash as module

    rng = np.random.default_rng(1)

    def two_sides(period):
        """Forty random words, and the same with 0, 1, 2 ... bits turned."""
        base = rng.integers(0, 2**63, 40, np.uint64)
        turned = [sum(1 << int(b) for b in rng.choice(64, n % period, replace=False)) for n in range(40)]
        return base, base ^ np.array(turned, np.uint64)

    phash, dhash = two_sides(12), two_sides(7)
    ours, theirs = (FrameHashes(np.arange(40), np.arange(40), phash[k], dhash[k]) for k in (0, 1))
    params = HashParams(max_phash=6, max_dhash=4)

    def bits(pair, i, j):
        return bin(int(pair[0][i]) ^ int(pair[1][j])).count("1")

    expected = [
        [i, j, bits(phash, i, j), bits(dhash, i, j)]
        for i in range(40)
        for j in range(40)
        if bits(phash, i, j) <= 6 and bits(dhash, i, j) <= 4
    ]
    assert 10 < len(expected) < 30
    for block in (1 << 21, 100):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert near_pairs(ours, theirs, params).tolist() == expected


def test_frames_without_contrast_have_no_hash():
    flat = np.full((32, 32, 3), 128, np.uint8)
    assert hash_frame(flat, 4.0) is None and hash_frame(flat) is not None


def test_spread_frames():
    assert spread_frames(100, 3).tolist() == [0, 50, 99]
    assert spread_frames(1, 5).tolist() == [0]


def test_limits_are_checked():
    for bad in ({"max_phash": 65}, {"max_dhash": -1}, {"max_frames": 0}):
        with pytest.raises(UsageError):
            HashParams(**bad)


# --- pictures


def reencoded(rgb, size, quality):
    small = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Six scenes of ours; two of them again as another benchmark's files, smaller and re-encoded."""
    root = tmp_path_factory.mktemp("leaks")
    made = [native.small_world(seed, num_frames=3, size=(128, 96)) for seed in range(20, 26)]
    (root / "ours").mkdir()
    for number, world in enumerate(made):
        write_world_scene(world, root / "ours" / f"{number}.h5")
    for name, world in (
        ("alley_2", made[1]),
        ("cave_2", made[4]),
        ("market_2", native.small_world(40, 3, size=(128, 96))),
    ):
        folder = root / "sintel" / "final" / name
        for t in range(3):
            native.png(folder / f"frame_{t + 1:04d}.png", reencoded(world.render(t).rgb, (90, 68), 60))
    return root, made


def test_pictures_are_known_again_after_resizing_and_jpeg(worlds):
    root, made = worlds
    ours, theirs = items_of(str(root / "ours")), items_of(str(root / "sintel"))
    seen: list[str] = []
    report = find_leaks(ours, theirs, HashParams(), thumbnails=True, progress=seen.append)
    found = {(leak.ours.partition("/")[2], leak.theirs) for leak in report.leaks}
    assert found == {(made[1].name, "sintel/alley_2"), (made[4].name, "sintel/cave_2")}
    assert all(leak.by == "pictures" and leak.num_frames == 3 for leak in report.leaks)
    assert all(leak.frames[0][0] == leak.frames[0][1] for leak in report.leaks)  # frame for frame
    assert len(seen) == len(ours) + len(theirs) == 9
    text = json.dumps(report.to_json())
    assert len(report.thumbnails) == 4 and "data:image/jpeg;base64," in text
    # By name they share nothing, and with no bit to spare nothing either.
    assert not find_leaks(ours, theirs).leaks
    assert len(find_leaks(ours, theirs, HashParams(max_phash=0, max_dhash=0)).leaks) < 2


def test_different_worlds_are_not_taken_for_each_other(worlds):
    root, made = worlds
    ours = items_of(str(root / "ours"))
    report = find_leaks(ours, ours, HashParams())
    assert {(leak.ours, leak.theirs) for leak in report.leaks} == {(item.name, item.name) for item in ours}
    assert {leak.by for leak in report.leaks} == {"name", "pictures"}


@pytest.fixture(scope="module")
def shards(worlds):
    root, _ = worlds
    params = PackParams(clip_frames=2, stride=1, min_level="none")
    pack(sorted((root / "ours").glob("*.h5")), root / "set", params=params, progress=False)
    return root / "set"


def test_shards_are_compared_scene_by_scene(worlds, shards):
    root, made = worlds
    ours = items_of(str(shards))
    assert len(ours) == 6
    # Two windows of two frames share the middle one; it comes once, under the scene's number.
    assert [number for number, _ in ours[0].frames(10)] == [0, 1, 2]
    report = find_leaks(ours, items_of(str(root / "sintel")), HashParams())
    assert {leak.theirs for leak in report.leaks} == {"sintel/alley_2", "sintel/cave_2"}
    named = find_leaks(ours, items_of(str(root / "ours" / "2.h5")))
    assert named.scenes() == [f"world/{made[2].name}"]


def test_refusal_names_the_scenes(worlds, shards):
    root, made = worlds
    with pytest.raises(QualityError, match=made[2].name):
        require_no_leaks([str(shards)], [str(root / "ours" / "2.h5")])
    assert require_no_leaks([str(shards)], [str(root / "ours" / "2.h5")], allow=True) == [
        f"world/{made[2].name}"
    ]
    assert require_no_leaks([str(shards)], ["sintel", "scannet:test"]) == []
    with pytest.raises(QualityError, match="alley_2"):
        require_no_leaks([str(shards)], [str(root / "sintel")], pictures=True)


def test_several_views_are_one_scene(tmp_path):
    world = native.small_world(2, num_frames=2, num_views=2)
    write_world_scene(world, tmp_path / "w.h5")
    items = items_of(str(tmp_path))
    assert len(items) == 2 and items[0].keys == items[1].keys


def test_flat_frames_are_counted_and_not_compared(tmp_path):
    write_tiny(tmp_path / "a.h5", num_frames=2)
    items = items_of(str(tmp_path / "a.h5"))
    report = find_leaks(items, items, HashParams(min_contrast=255.0))
    assert report.settings["flat_frames_left_out"] == 4 and {leak.by for leak in report.leaks} == {"name"}
