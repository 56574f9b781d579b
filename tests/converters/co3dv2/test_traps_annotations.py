"""Traps of frame_annotations.jgz and sequence_annotations.jgz: nulls, time stamps, quality scores, order.

Each test fails without its handling.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

import converters.co3dv2 as co3dv2
from converters.co3dv2.annotations import parse_frame, parse_sequence
from converters.co3dv2.write import write_jgz
from datakit.errors import ConventionError, FormatError

from .snippets import FRAME, frame
from .takes import FRAMES, PARAMS, category, drain, edit, edit_frames, open_take, small_world, write_take

# --- frames -----------------------------------------------------------------------------------------------------------


def test_trap_size_is_height_first() -> None:
    assert parse_frame(frame(image={"path": "a/s/images/frame000007.jpg", "size": [40, 30]}), "x").size == (
        30,
        40,
    )


def test_trap_nulls_and_unknown_keys() -> None:
    note = parse_frame(frame(depth=None, mask=None, viewpoint=None, meta=None, new_key={"a": 1}), "x")
    assert (note.depth, note.mask, note.viewpoint, note.frame_type) == (None, None, None, "")
    bare = parse_sequence({"sequence_name": "s", "video": None, "point_cloud": None, "newer": 1}, "x")
    assert (bare.viewpoint_quality, bare.point_cloud_quality, bare.num_points) == (None, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence_name": "../up"},
        {"sequence_name": None},
        {"frame_number": -1},
        {"frame_number": "3"},
        {"frame_number": True},
        {"frame_timestamp": "now"},
        {"image": None},
        {"image": {"path": "a\0b", "size": [4, 4]}},
        {"image": {"path": "a", "size": [4]}},
        {"image": {"path": "a", "size": [0, 4]}},
        {"image": {"path": "a", "size": [10**6, 10**6]}},
        {"depth": [1]},
        {"depth": {"path": "a", "scale_adjustment": 0}},
        {"depth": {"path": "a", "scale_adjustment": float("nan")}},
        {"viewpoint": {**FRAME["viewpoint"], "R": [[1, 0], [0, 1]]}},
        {"viewpoint": {**FRAME["viewpoint"], "T": "abc"}},
        {"viewpoint": {**FRAME["viewpoint"], "intrinsics_format": "pixels"}},
    ],
)
def test_malformed_annotations_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((FormatError, ConventionError)):
        parse_frame(frame(**changes), "x")


def test_trap_nan_and_infinity_literals(raw: Path, tmp_path: Path) -> None:
    edit_frames(raw, lambda items: items[1]["viewpoint"].update(T=[float("nan"), 0, 1]))
    edit_frames(raw, lambda items: items[3]["viewpoint"].update(focal_length=[float("inf"), 1]))
    assert b"NaN" in gzip.decompress((category(raw) / "frame_annotations.jgz").read_bytes())
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.views["camera"].pose_is_known.tolist() == [True, False, True, False, True]
        assert scene.metadata["poses_unknown"]["frame000002"] == "not finite"


@pytest.mark.parametrize("stamp", [0.0, 1 / 12, None, float("nan")], ids=["back", "equal", "null", "nan"])
def test_trap_timestamps_that_do_not_increase(raw: Path, tmp_path: Path, stamp: float | None) -> None:
    assert small_world().times[1] == 1 / 12
    edit_frames(raw, lambda items: items[2].update(frame_timestamp=stamp))
    with open_take(raw, tmp_path / "o") as scene:
        assert scene.time_kind == "set" and scene.metadata["times"].startswith("numbers")
        assert scene.views["camera"].times.tolist() == list(range(FRAMES))


def test_frames_of_a_sequence_need_not_be_together(tmp_path: Path) -> None:
    root = write_take(tmp_path, "category", *(small_world(s, num_frames=4, size=(16, 12)) for s in (1, 2)))
    edit_frames(root, lambda items: items.sort(key=lambda f: (f["frame_number"], f["sequence_name"])))
    refs = list(co3dv2.scenes(root, PARAMS))
    assert [len(ref.location["spans"]) for ref in refs] == [4, 4]
    assert [co3dv2.read(root, ref, PARAMS).record.metadata["frame_numbers"] for ref in refs] == [
        [0, 1, 2, 3]
    ] * 2


def test_frame_annotated_twice(raw: Path) -> None:
    edit_frames(raw, lambda items: items[2].update(frame_number=1))
    with pytest.raises(FormatError, match="twice"):
        drain(raw)


def test_annotations_that_changed_since_they_were_listed(raw: Path) -> None:
    (ref,) = co3dv2.scenes(raw, PARAMS)
    edit_frames(raw, lambda items: [i.update(sequence_name="1_2_3") for i in items])
    with pytest.raises(FormatError):
        co3dv2.read(raw, ref, PARAMS)
    (path,) = raw.rglob("frame_annotations.jgz")
    write_jgz(path, [])
    with pytest.raises(FormatError):
        co3dv2.read(raw, ref, PARAMS)


# --- sequences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("score", "kept"), [(0.2, False), (0.5, False), (0.51, True), (None, False)])
def test_trap_viewpoint_quality_is_strict_and_can_be_null(
    tmp_path: Path, score: float | None, kept: bool
) -> None:
    root = write_take(
        tmp_path, "category", small_world(1, num_frames=1, size=(16, 12)), viewpoint_quality=score
    )
    assert len(list(co3dv2.scenes(root, co3dv2.Params(min_viewpoint_quality=0.5)))) == kept
    (ref,) = co3dv2.scenes(root, PARAMS)  # by default no sequence is left out
    assert co3dv2.read(root, ref, PARAMS).record.metadata["annotation"]["viewpoint_quality"] == score


def test_trap_point_cloud_quality(raw: Path) -> None:
    for least, kept in ((0.5, 1), (0.9, 0), (0.95, 0)):
        assert len(list(co3dv2.scenes(raw, co3dv2.Params(min_point_cloud_quality=least)))) == kept
    edit(category(raw) / "sequence_annotations.jgz", lambda items: items[0].update(point_cloud=None))
    assert not list(co3dv2.scenes(raw, co3dv2.Params(min_point_cloud_quality=0.5)))


def test_trap_missing_sequence_annotations(raw: Path) -> None:
    (category(raw) / "sequence_annotations.jgz").unlink()
    assert drain(raw) == FRAMES
    assert "no quality scores" in co3dv2.probe(raw).problems[0].what
