"""The targets of the fuzzer still fit the parsers, and the inputs that no mutation finds are met without it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from datakit.errors import DatakitError

from .coverage_guided import trapped, was_refused
from .targets import GROUPS, make_group, make_target
from .targets.kit import EDITS, ODD, edited, right_png, right_records

#: Extras that groups of targets need.
NEEDS = {"dynamic_replica": "torch", "waymo_v2": "pyarrow", "colmap_lens": "pycolmap"}
#: Each so many traps of a seed is tried here; the fuzzer tries all.
EVERY = 7


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: GROUPS[group][0])
def test_seeds_and_traps_give_typed_errors_only(group: str, tmp_path: Path) -> None:
    if group in NEEDS:
        pytest.importorskip(NEEDS[group])
    targets = make_group(group, tmp_path)
    assert sorted(targets) == sorted(GROUPS[group])
    for name, target in targets.items():
        is_read = False
        for seed in target.seeds:
            for data in (seed, *list(trapped(seed))[::EVERY]):
                try:
                    target.parse(data)
                    is_read = True
                except DatakitError as error:
                    assert not was_refused(error)
        assert is_read, f"nothing that {name} starts from is read"


def test_a_target_can_be_made_alone(tmp_path: Path) -> None:
    assert make_target("pfm", tmp_path).seeds
    with pytest.raises(ValueError, match="unpack"):
        make_target("no such target", tmp_path)


def test_edits_keep_what_they_do_not_name() -> None:
    value = {"a": [1, {"b": 2}], "c": "d"}
    assert edited(value, b"") == value == {"a": [1, {"b": 2}], "c": "d"}
    # Places in order: a, a[0], a[1], b, c.
    assert edited(value, b"\3\0\2") == {"a": [1, {"b": ODD[2]}], "c": "d"}
    assert edited(value, b"\1\0\xff") == {"a": [{"b": 2}], "c": "d"}
    assert edited({"a": 1}, b"\0\0\xff\0\0\0") == {}
    for index, odd in enumerate(ODD):
        made = edited(value, bytes([1, 0, index]))
        assert repr(made) == repr({"a": [odd, {"b": 2}], "c": "d"}), "repr, for NaN is not itself"
        assert not isinstance(odd, (list, dict)) or made["a"][0] is not odd, (
            "a later edit must not change ODD"
        )
    # An edit after another finds its place in what that one made: a, a[0], c.
    assert edited(value, bytes([0, 0, ODD.index([1]), 1, 0, 2])) == {"a": [ODD[2]], "c": "d"}
    for edit in EDITS:
        assert edit == b"" or repr(edited(value, edit)) != repr(value)


def test_checksums_are_made_right() -> None:
    from converters.native.tfrecord import masked_crc
    from datakit.scene import check_png, encode_png

    png = bytearray(encode_png(np.zeros((3, 4), np.uint8)))
    png[29:33] = b"oops"
    assert check_png(right_png(bytes(png)), "x") == (4, 3)
    record = right_records(b"abc")
    assert record[12:15] == b"abc" and int.from_bytes(record[15:], "little") == masked_crc(b"abc")


def test_refusals_of_memory_are_known_by_their_cause() -> None:
    def raised(cause: BaseException) -> BaseException:
        try:
            raise ValueError("x") from cause
        except ValueError as error:
            return error

    assert was_refused(MemoryError()) and was_refused(raised(MemoryError()))
    assert was_refused(RuntimeError("std::bad_alloc")) and not was_refused(raised(KeyError("a")))
    assert not was_refused(None)


def test_each_number_is_trapped() -> None:
    found = list(trapped(b'{"a": 1, "b": [2.5]}'))
    assert len(found) == 12 and all(re.search(rb'"b"', data) for data in found)
