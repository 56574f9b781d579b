"""Annotations of any size: in bounded memory, found again by position, damage named."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from converters.co3dv2 import jgz
from converters.co3dv2.jgz import MAX_ITEM, Unpacked, array_items, file_items, span_items
from datakit.errors import FormatError, LayoutError

ITEMS = [{"n": k, "text": "ü" * (k % 7), "list": [k, [k]], "nan": None} for k in range(300)]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jgz", gzip.compress(json.dumps(ITEMS, ensure_ascii=False).encode()))


def test_items_come_back_in_order(path: Path) -> None:
    items = list(file_items(path))
    assert [item.value for item in items] == ITEMS
    whole = gzip.decompress(path.read_bytes())
    assert all(json.loads(whole[item.start : item.end]) == item.value for item in items)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
def test_any_cut_into_pieces_gives_the_same(size: int) -> None:
    text = json.dumps(ITEMS[:20], indent=1, ensure_ascii=False).encode()
    pieces = [text[k : k + size] for k in range(0, len(text), size)]
    assert [item.value for item in array_items(pieces, "x")] == ITEMS[:20]


def test_spans_are_found_again(path: Path) -> None:
    items = list(file_items(path))
    spans = [(items[250].start, items[259].end), (items[3].start, items[3].end)]
    assert [item.value for item in span_items(path, spans)] == ITEMS[250:260] + ITEMS[3:4]


def test_states_are_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jgz, "_BETWEEN_STATES", 50_000)
    body = np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8).tobytes()
    reader = Unpacked(write(tmp_path / "b.gz", gzip.compress(body)))
    assert b"".join(reader.pieces()) == body
    assert reader.num_states > 3
    monkeypatch.setattr(jgz, "_READ", 1000)
    used: list[int] = []
    right = Unpacked._more
    monkeypatch.setattr(Unpacked, "_more", lambda self, f, s: used.append(s.used) or right(self, f, s))
    assert b"".join(reader.pieces(500_000, 500_010)) == body[500_000:500_010]
    assert min(used) > 100_000  # not from the start
    for start, end in ((0, 5), (49_999, 200_001), (599_999, 600_000), (7, 7)):
        assert b"".join(reader.pieces(start, end)) == body[start:end]


def test_members_one_after_the_other_and_padding(tmp_path: Path) -> None:
    data = gzip.compress(b'[{"a": 1},') + gzip.compress(b' {"a": 2}]') + bytes(100_000)
    assert [i.value["a"] for i in file_items(write(tmp_path / "m.jgz", data))] == [1, 2]


def test_memory_is_that_of_a_window(tmp_path: Path) -> None:
    """30 MB of annotations."""
    item = json.dumps({"a": [1, 2], "b": "x" * 3000})
    count, packer = 10_000, zlib.compressobj(1, zlib.DEFLATED, 31)
    with open(tmp_path / "big.jgz", "wb") as file:
        file.write(packer.compress(b"["))
        for k in range(count):
            file.write(packer.compress((item + ("," if k < count - 1 else "]")).encode()))
        file.write(packer.flush())
    tracemalloc.start()
    assert sum(1 for _ in file_items(tmp_path / "big.jgz")) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[",
        b"[{}",
        b"[{},",
        b"[{},]",
        b"[{}]x",
        b"[{}]]",
        b"[1]",
        b"[{} {}]",
        b'[{"a": }]',
        b'[{"a": "\xff"}]',
        b"[[]]",
        b"[{]",
        b"null",
        b'[{"a": 1' + b"0" * 5000 + b"}]",
        b'[{"a":' + b"[" * 20_000,
    ],
)
def test_other_texts_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        list(array_items([text], "x"))


def test_endless_item_is_refused_early() -> None:
    taken = 0

    def pieces():  # type: ignore[no-untyped-def]
        nonlocal taken
        yield b'[{"a": "'
        while True:
            taken += 1
            yield b"x" * 65536

    with pytest.raises(FormatError, match="too long"):
        list(array_items(pieces(), "x"))
    assert taken * 65536 < 8 * MAX_ITEM


def test_empty_array_and_white_space() -> None:
    assert list(array_items([b" \n[ \t ] \r\n"], "x")) == []


def test_nan_literals_are_read() -> None:
    (item,) = array_items([b'[{"a": NaN, "b": -Infinity}]'], "x")
    assert np.isnan(item.value["a"]) and item.value["b"] == -np.inf


def test_truncated_and_corrupt_files_are_named(path: Path) -> None:
    data = path.read_bytes()
    for bad in (data[:-9], data[: len(data) // 2], b"PK" + data, data[:30] + bytes(8) + data[38:], b""):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=r"a\.jgz"):
            list(file_items(path))
    path.write_bytes(data[:-6] + bytes([data[-6] ^ 1]) + data[-5:])  # the checksum at the end
    with pytest.raises(FormatError, match="corrupt"):
        list(file_items(path))
    path.unlink()
    with pytest.raises(LayoutError):
        list(file_items(path))
