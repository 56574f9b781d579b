"""Traps of the release's trees: what of it is there, where its files are, and what of it is not to be believed.

Each test fails without its handling.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converters.co3dv2 as co3dv2
from converters.co3dv2.write import file_number
from datakit.errors import ConventionError, LayoutError, UsageError

from .takes import (
    FRAMES,
    PARAMS,
    category,
    drain,
    edit,
    edit_frames,
    open_take,
    sequence,
    small_world,
    write_take,
)


def test_trap_metadata_without_images_is_named(raw: Path) -> None:
    shutil.rmtree(sequence(raw))
    report = co3dv2.probe(raw)
    assert report.variant.startswith("annotations without images")
    with pytest.raises(LayoutError, match="No sequence of the annotations is here"):
        list(co3dv2.scenes(raw, PARAMS))


def test_trap_only_some_chunks_downloaded(tmp_path: Path) -> None:
    root = write_take(tmp_path, "category", *(small_world(s, num_frames=2, size=(16, 12)) for s in (1, 2)))
    shutil.rmtree(root / "apple" / "110_13051_23361")
    assert [ref.id for ref in co3dv2.scenes(root, PARAMS)] == ["apple-111_13058_23372"]
    assert "1 of 2 annotated sequences are not here" in co3dv2.probe(root).problems[0].what
    assert drain(root) == 2


def test_trap_variants_are_named(tmp_path: Path) -> None:
    worlds = [small_world(seed, num_frames=4, size=(16, 12)) for seed in range(3)]
    want = {
        "full": "part of the release: 2 of 51 categories, 3 sequences; set lists fewview_dev, fewview_train",
        "single-sequence": "single-sequence subset: 3 of 51 categories, 3 sequences; set lists manyview_dev_0",
        "category": "one category, apple: 1 of 51 categories, 3 sequences; set lists fewview_dev, fewview_train",
        "challenge": "one category, hydrant: 1 of 51 categories, 3 sequences; set lists fewview_test; "
        "challenge frames are redacted",
    }
    for form, variant in want.items():
        report = co3dv2.probe(write_take(tmp_path / form, form, *worlds))
        assert (report.variant, report.problems) == (variant, ())


def test_trap_root_is_a_category_itself(raw: Path) -> None:
    with pytest.raises(LayoutError, match=r'categories=\["apple"\]'):
        list(co3dv2.scenes(raw / "apple", PARAMS))
    assert 'categories=["apple"]' in co3dv2.probe(raw / "apple").problems[0].what


def test_trap_version_1_is_refused_by_name(raw: Path) -> None:
    (raw / "apple" / "set_lists.json").write_text("{}")
    with pytest.raises(LayoutError, match="CO3D version 1"):
        list(co3dv2.scenes(raw, PARAMS))
    assert "CO3D version 1" in co3dv2.probe(raw).problems[0].what


def test_trap_image_sizes_that_change_are_of_version_1(raw: Path) -> None:
    edit_frames(raw, lambda items: items[2]["image"].update(size=[64, 47]))
    with pytest.raises(ConventionError, match="version 1"):
        drain(raw)


def test_trap_file_number_is_not_frame_number(raw: Path, tmp_path: Path) -> None:
    """Cameras and times follow frame_number, whatever the files are called and in whatever order they are listed."""
    edit_frames(raw, lambda items: items.reverse())
    world = small_world()
    with open_take(raw, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.frame_names == tuple(f"frame{file_number(t):06d}" for t in range(FRAMES))
        assert [file_number(t) for t in range(4)] == [1, 2, 6, 7]
        assert scene.metadata["frame_numbers"] == list(range(FRAMES))
        assert np.abs(view.world_from_cam - world.views["camera"].world_from_cam).max() < 1e-6
        assert np.array_equal(view.times, world.times)


def test_trap_paths_come_from_the_annotation(raw: Path, tmp_path: Path) -> None:
    """A depth map under an unusual name is found where the annotation says."""
    folder = sequence(raw)
    (folder / "depths" / "frame000001.jpg.geometric.png").rename(folder / "depths" / "other.png")
    edit_frames(raw, lambda items: items[0]["depth"].update(path=f"apple/{folder.name}/depths/other.png"))
    with open_take(raw, tmp_path / "o") as scene:
        assert np.isfinite(scene.views["camera"].z_depth(0)).any()


def test_trap_categories_can_be_chosen(tmp_path: Path) -> None:
    root = write_take(tmp_path, "full", *(small_world(s, num_frames=1, size=(16, 12)) for s in (1, 2)))
    chosen = co3dv2.Params(categories=("teddybear",))
    assert [ref.id for ref in co3dv2.scenes(root, chosen)] == ["teddybear-111_13058_23372"]
    with pytest.raises(UsageError, match="No such category"):
        list(co3dv2.scenes(root, co3dv2.Params(categories=("pear",))))


# --- untrusted trees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["images/frame000002.jpg", "depths/frame000002.jpg.geometric.png"])
def test_missing_file_is_named(raw: Path, gone: str) -> None:
    (sequence(raw) / gone).unlink()
    with pytest.raises(LayoutError, match="frame000002"):
        drain(raw)
    assert "frame000002" in co3dv2.probe(raw).problems[0].what


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "apple/../../x"])
@pytest.mark.parametrize("part", ["image", "depth", "mask"])
def test_paths_that_leave_the_root_are_refused(raw: Path, path: str, part: str) -> None:
    edit_frames(raw, lambda items: items[1][part].update(path=path))
    with pytest.raises(LayoutError, match="leaves"):
        drain(raw)


def test_fingerprint_follows_files_annotations_and_lists(raw: Path) -> None:
    def fingerprint() -> str:
        return next(iter(co3dv2.scenes(raw, PARAMS))).fingerprint

    seen = {fingerprint()}
    edit_frames(raw, lambda items: items[0]["viewpoint"].update(T=[0, 0, 1]))
    seen.add(fingerprint())
    with open(sequence(raw) / "images" / "frame000001.jpg", "ab") as file:
        file.write(b"\0")
    seen.add(fingerprint())
    (path,) = raw.rglob("set_lists_fewview_train.json")
    path.write_text('{"train": [["110_13051_23361", 0, "p"]]}')
    seen.add(fingerprint())
    edit(
        category(raw) / "sequence_annotations.jgz", lambda items: items[0].update(viewpoint_quality_score=0.1)
    )
    seen.add(fingerprint())
    assert len(seen) == 5


def test_probe_never_raises(tmp_path: Path, raw: Path) -> None:
    assert co3dv2.probe(tmp_path / "nothing").problems[0].severity == "error"
    (tmp_path / "empty").mkdir()
    assert co3dv2.probe(tmp_path / "empty").variant == "none"
    (category(raw) / "frame_annotations.jgz").write_bytes(b"\x1f\x8b")
    assert co3dv2.probe(raw).problems[0].severity == "error"


def test_wrong_use_is_refused(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    with pytest.raises(UsageError):
        co3dv2.read(raw, replace(ref, location={}), PARAMS)
    with pytest.raises(LayoutError):
        list(co3dv2.scenes(raw / "nothing", PARAMS))


def test_frames_are_read_when_asked_for(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    stream = co3dv2.read(raw, ref, PARAMS)
    assert len(stream.sources) == 1
    next(stream.frames)
    assert len(stream.sources) == 5
