"""Traps of the official splits.

Each test fails without its handling.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import converters.scannet as scannet
from converters.scannet.splits import VAL_SPACES, official_split

from .scans import PARAMS, write_hand

VAL_DIGEST = "18fe02f6eeea09e0"


def test_trap_split_is_by_space_as_the_official_lists() -> None:
    """Counts of scannetv2_{train,val,test}.txt; every scan of a space is in one list."""
    splits = [official_split(f"scene{space:04d}_00") for space in range(900)]
    assert [splits.count(name) for name in ("train", "val", "test", "none")] == [565, 142, 100, 93]
    digest = hashlib.sha256(",".join(map(str, sorted(VAL_SPACES))).encode()).hexdigest()
    assert digest[:16] == VAL_DIGEST
    assert official_split("scene0011_01") == official_split("scene0011_00") == "val"


def test_split_of_a_tree(tmp_path: Path) -> None:
    for name in ("scene0011_00", "scene0012_00", "scene0800_00"):
        write_hand(tmp_path, name=name)
    found = {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}
    assert found == {"scene0011_00": "val", "scene0012_00": "train", "scene0800_00": "test"}
    assert scannet.probe(tmp_path).num_scenes == {"val": 1, "train": 1, "test": 1}
    kitchen = Path(shutil.move(tmp_path / "scans" / "scene0800_00", tmp_path / "scans_test" / "kitchen"))
    (kitchen / "scene0800_00.sens").rename(kitchen / "kitchen.sens")
    assert {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}["kitchen"] == "test"
    shutil.move(kitchen, tmp_path / "scans" / "kitchen")
    assert {ref.id: ref.split for ref in scannet.scenes(tmp_path, PARAMS)}["kitchen"] == "none"
