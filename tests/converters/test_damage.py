"""The damage that fuzz tests do is the damage they say."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings

from datakit.errors import FormatError
from datakit.scene import check_png
from tests.converters.damage import FUZZ, JSON, check, damaged, edited, edits, json_objects, pngs
from tests.converters.dynamic_replica.snippets import DEPTH_PNG
from tests.fuzz.targets.kit import right_png

#: Any example will do; making it small takes long.
FIRST = settings(phases=[Phase.generate], max_examples=1000)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ((0.5, "put", b"XY"), b"abcXYf"),
        ((1.0, "put", b"XY"), b"abcdefXY"),
        ((0.5, "insert", b"XY"), b"abcXYdef"),
        ((0.0, "flip", 1), b"cbcdef"),
        ((1.0, "flip", 1), b"abcdef"),
        ((0.5, "cut", 2), b"abcf"),
        ((0.5, "end", None), b"abc"),
    ],
)
def test_an_edit_is_made(change, want):
    assert edited(b"abcdef", [change]) == want


def test_every_kind_of_edit_and_none_are_drawn():
    for kind in ("put", "insert", "flip", "cut", "end"):
        assert find(
            edits(), lambda changes, kind=kind: any(change[1] == kind for change in changes), settings=FIRST
        )
    assert find(damaged(b"abc", JSON), lambda data: data == b"abc", settings=FIRST) == b"abc"
    assert find(damaged(b"abc", JSON), lambda data: b"1e999" in data, settings=FIRST)


@FUZZ
@given(pngs(DEPTH_PNG))
def test_damaged_pictures_have_right_checksums(data):
    assert right_png(data) == data


def test_pictures_are_damaged_and_not_only_refused_for_their_checksums():
    with pytest.raises(FormatError, match="CRC"):
        check_png(edited(DEPTH_PNG, [(0.5, "flip", 1)]), "x")
    assert find(pngs(DEPTH_PNG), lambda data: data != DEPTH_PNG, settings=FIRST)


def test_values_of_objects_in_objects_are_replaced():
    example = {"a": 1, "b": {"path": "p"}}
    assert find(json_objects(example), lambda out: out["a"] is None)["a"] is None
    found = find(
        json_objects(example), lambda out: isinstance(out["b"], dict) and out["b"].get("path") != "p"
    )
    assert found["b"]["path"] is None and example == {"a": 1, "b": {"path": "p"}}


def test_only_typed_errors_and_little_memory_are_let_through(monkeypatch):
    monkeypatch.setattr("tests.converters.damage.COUNT", 1)

    def refuse() -> None:
        raise FormatError("No.", where="x", expected=1, found=2)

    check(refuse)
    with pytest.raises(KeyError):
        check(lambda: {}["x"])
    with pytest.raises(AssertionError):
        check(lambda: bytes(1 << 25))
