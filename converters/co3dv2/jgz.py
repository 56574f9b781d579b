"""Gzipped JSON arrays of any size in bounded memory, in order and by position.

A category's frame_annotations.jgz unpacks to gigabytes. Its items are parsed one by one by the standard library's
scanner on a window of the text; and the state of the decompressor is kept every few MiB, so that the items of one
sequence are found again without unpacking what lies before them more than once in a process.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from datakit.errors import FormatError, LayoutError

#: Read from disk at a time, and unpacked at most from it.
_READ, _PIECE = 1 << 16, 1 << 18
#: Unpacked bytes between two kept states, of some 45 kB each.
_BETWEEN_STATES = 8 << 20
#: An item of the release has about one kB.
MAX_ITEM = 1 << 20
_SPACE = " \t\n\r"
#: 16 for the gzip wrapper with its checksum, 15 for the largest window.
_GZIP = 16 + 15


@dataclass
class _State:
    """Where unpacking stands: bytes made, bytes of the file used, and the decompressor."""

    made: int
    used: int
    inflate: Any


class Unpacked:
    """The content of a gzip file, read at any position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._states = [_State(0, 0, zlib.decompressobj(_GZIP))]

    @property
    def num_states(self) -> int:
        """How many states are kept."""
        return len(self._states)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end` (None: to the end) in pieces of at most 256 KiB.

        Raises:
            LayoutError: The file cannot be read.
            FormatError: Not gzip, truncated, corrupt, or shorter than `end`.
        """
        try:
            with open(self.path, "rb") as file:
                yield from self._cut(file, start, end)
        except OSError as err:
            raise LayoutError(
                "A file cannot be read.",
                where=self.path,
                expected="a readable file",
                found=err.strerror or err,
            ) from err

    def _cut(self, file: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
        near = bisect_right([state.made for state in self._states], start) - 1
        state = self._states[near]
        state = _State(state.made, state.used, state.inflate.copy())
        while end is None or state.made < end:
            before = state.made
            piece = self._more(file, state)
            if piece is None:
                if end is not None:
                    raise FormatError(
                        "A gzip file is shorter than before.", where=self.path, expected=end, found=before
                    )
                return
            if state.made - self._states[-1].made >= _BETWEEN_STATES:
                self._states.append(_State(state.made, state.used, state.inflate.copy()))
            wanted = piece[max(0, start - before) : None if end is None else max(0, end - before)]
            if wanted:
                yield wanted

    def _more(self, file: BinaryIO, state: _State) -> bytes | None:
        """Unpack a little more; b"" is possible, None is the end of the file."""
        file.seek(state.used)
        data = file.read(_READ)
        if state.inflate.eof:  # another member may follow, or padding of zeros
            if not data.strip(b"\0"):
                return None if len(data) < _READ else self._skip(state, len(data))
            state.inflate = zlib.decompressobj(_GZIP)
        try:
            piece = state.inflate.decompress(data, _PIECE)
        except zlib.error as err:
            raise FormatError(
                "A gzip file is corrupt.", where=f"{self.path}: near byte {state.used}", found=err
            ) from err
        left = state.inflate.unused_data if state.inflate.eof else state.inflate.unconsumed_tail
        state.used += len(data) - len(left)
        state.made += len(piece)
        if not data and not piece and not state.inflate.eof:
            raise FormatError(
                "A gzip file is truncated.", where=self.path, expected="an end", found=f"{state.used} bytes"
            )
        return bytes(piece)

    @staticmethod
    def _skip(state: _State, count: int) -> bytes:
        state.used += count
        return b""


def unpacked(path: Path) -> Unpacked:
    """Return the reader of a file, the same one as long as the file is the same."""
    try:
        stat = path.stat()
    except OSError as err:
        raise LayoutError("A file cannot be read.", where=path, found=err.strerror or err) from err
    return _unpacked(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _unpacked(path: Path, size: int, mtime_ns: int) -> Unpacked:
    return Unpacked(path)


@dataclass(frozen=True)
class Item:
    """One item of an array: where its text is in the unpacked file, the text, and the object."""

    start: int
    end: int
    raw: bytes
    value: dict[str, Any]


class _Window:
    """A stretch of the text. One character is one byte: only whole items are decoded from UTF-8."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.text, self.at, self.base = "", 0, 0

    def more(self) -> bool:
        """Add a piece, at least as long as what is still to be read; False at the end."""
        rest = self.text[self.at :]
        gathered, size = [rest], 0
        while size <= len(rest) and (piece := next(self.pieces, None)) is not None:
            gathered.append(piece.decode("latin-1"))
            size += len(piece)
        self.base += self.at
        self.text, self.at = "".join(gathered), 0
        return size > 0

    def peek(self) -> str:
        """Return the next character that is no white space, "" at the end, without taking it."""
        while True:
            text, at = self.text, self.at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self.at = at
            if at < len(text):
                return text[at]
            if not self.more():
                return ""


_DECODER = json.JSONDecoder()


def array_items(pieces: Iterable[bytes], where: str) -> Iterator[Item]:
    """Parse an array of objects, item by item.

    Args:
        pieces: The text, UTF-8, in pieces of any length.
        where: File, for errors.

    Yields:
        The items; positions are counted from the first piece.

    Raises:
        FormatError: Not an array of objects, truncated, with bytes after its end, or with an item over 1 MiB.
    """
    window = _Window(iter(pieces))
    _expect(window, "[", where)
    if window.peek() == "]":
        window.at += 1
    else:
        while True:
            yield _item(window, where)
            if _expect(window, ",]", where) == "]":
                break
    if window.peek():
        raise FormatError("Something follows the array.", where=_place(window, where), expected="the end")


def _place(window: _Window, where: str) -> str:
    return f"{where}: unpacked byte {window.base + window.at}"


def _expect(window: _Window, characters: str, where: str) -> str:
    found = window.peek()
    if not found or found not in characters:
        raise FormatError(
            "Not a JSON array of objects, or truncated.",
            where=_place(window, where),
            expected=" or ".join(characters),
            found=repr(found) if found else "the end",
        )
    window.at += 1
    return found


def _item(window: _Window, where: str) -> Item:
    if window.peek() != "{":
        _expect(window, "{", where)
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.at)
            break
        except json.JSONDecodeError as err:
            held = len(window.text) - window.at
            if held > MAX_ITEM or not window.more():
                raise FormatError(
                    "An item is no JSON object, truncated, or too long.",
                    where=_place(window, where),
                    expected=f"an object of at most {MAX_ITEM} bytes",
                    found=err.msg,
                ) from err
        except (RecursionError, ValueError) as err:
            raise FormatError("An item cannot be parsed.", where=_place(window, where), found=err) from err
    start = window.at
    raw = window.text[start:end].encode("latin-1")
    place = _place(window, where)
    window.at = end
    return Item(window.base + start, window.base + end, raw, value if raw.isascii() else _utf8(raw, place))


def _utf8(raw: bytes, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(raw.decode("utf-8")))
    except ValueError as err:
        raise FormatError("An item is not UTF-8.", where=where, found=err) from err


def file_items(path: Path) -> Iterator[Item]:
    """Parse all items of a .jgz file."""
    return array_items(unpacked(path).pieces(), str(path))


def span_items(path: Path, spans: Iterable[tuple[int, int]]) -> Iterator[Item]:
    """Parse the items of some stretches of a .jgz file, each from an item's start to an item's end."""
    for start, end in spans:
        yield from array_items(_bracketed(unpacked(path).pieces(start, end)), f"{path}, from {start}")


def _bracketed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    yield from pieces
    yield b"]"
