"""Traps of the set lists: repeated frames, splits, subsets.

Each test fails without its handling.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import converters.co3dv2 as co3dv2
from converters.co3dv2.setlists import parse_list, split_of
from datakit.errors import FormatError

from .takes import FRAMES, PARAMS, category, drain, open_take, sequence


def test_trap_train_frames_listed_under_test_count_once(raw: Path) -> None:
    (path,) = raw.rglob("set_lists_fewview_train.json")
    listing = json.loads(path.read_text())
    assert listing["train"] == listing["test"]
    (ref,) = co3dv2.scenes(raw, PARAMS)
    assert ref.split == "train"
    assert drain(raw, co3dv2.Params(subset="fewview_train")) == FRAMES


def test_trap_frames_repeated_within_a_list() -> None:
    found = parse_list(b'{"train": [["s", 1, "p"], ["s", 1, "p"], ["s", 0, "p"]], "val": []}', "x")
    assert found == {"s": {"train": (0, 1)}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"train": 1}',
        b'{"train": [["s"]]}',
        b'{"train": [[1, 1, "p"]]}',
        b'{"train": [["s", true]]}',
        b"[" * 9999,
    ],
)
def test_damaged_set_lists_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_list(data, "x")


def test_trap_a_sequence_tested_on_is_never_training(raw: Path) -> None:
    both = {"fewview_train": {"train": (0,)}, "manyview_test": {"test": (1,)}}
    assert split_of(both) == "test" and split_of({"fewview_dev": {}, "fewview_train": {}}) == "val"
    assert split_of({}) == "none"
    assert {
        subset: split_of({subset: {}}) for subset in ("fewview_test", "manyview_dev_1", "fewview_train")
    } == {
        "fewview_test": "test",
        "manyview_dev_1": "val",
        "fewview_train": "train",
    }
    shutil.rmtree(category(raw) / "set_lists")
    assert next(iter(co3dv2.scenes(raw, PARAMS))).split == "none"


def test_trap_subset_takes_only_its_frames(raw: Path, tmp_path: Path) -> None:
    (path,) = raw.rglob("set_lists_fewview_train.json")
    name = sequence(raw).name
    path.write_text(
        json.dumps({"train": [[name, 3, "p"], [name, 1, "p"]], "val": [], "test": [[name, 3, "p"]]})
    )
    with open_take(raw, tmp_path / "o", co3dv2.Params(subset="fewview_train")) as scene:
        assert scene.metadata["frame_numbers"] == [1, 3]
        assert scene.metadata["set_lists"] == {"fewview_train": {"train": [0, 1], "test": [1]}}
        assert scene.provenance["params"]["subset"] == "fewview_train"
    assert list(co3dv2.scenes(raw, co3dv2.Params(subset="fewview_dev"))) == []
