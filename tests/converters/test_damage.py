"""The damage that fuzz tests do is the damage they say."""

from __future__ import annotations

import pytest
from hypothesis import find

from datakit.errors import FormatError
from tests.converters.damage import JSON, check, damaged, edited, edits, json_objects, pngs
from tests.converters.dynamic_replica.snippets import DEPTH_PNG, SIZE


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
        assert find(edits(), lambda changes, kind=kind: any(change[1] == kind for change in changes))
    assert find(damaged(b"abc", JSON), lambda data: data == b"abc") == b"abc"
    assert find(damaged(b"abc", JSON), lambda data: b"1e999" in data)


def test_damaged_pictures_pass_their_checksums():
    from converters.dynamic_replica import rasters

    def is_read(data: bytes) -> bool:
        try:
            return data != DEPTH_PNG and rasters.depth_codes(data, SIZE, "x") is not None
        except FormatError:
            return False

    assert find(pngs(DEPTH_PNG), is_read)


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
