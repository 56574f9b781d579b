"""Damage to native files for the fuzz tests of every converter: what is drawn, how often, and what is let through.

DATAKIT_FUZZ sets the number of inputs per test for long runs; up to 1,000 are the same ones every time.
"""

from __future__ import annotations

import copy
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from datakit.errors import DatakitError

COUNT = int(os.environ.get("DATAKIT_FUZZ", "150"))
FUZZ = settings(
    max_examples=COUNT,
    derandomize=COUNT <= 1000,
    suppress_health_check=list(HealthCheck),
)
#: Of Python's and numpy's allocations. Files here are a few kB; deflate can make a thousand times that.
MAX_BYTES = 16_000_000

# What matters to a parser of each kind of file, were it found in a place of its own.
JSON = tuple(rb'[ ] { } , " NaN 1e999 -1 null true'.split()) + (
    b"\xff",
    b"\xc3",
    b"\\ud800",
    b"\0",
    b"9" * 30,
)
TEXT = (b"nan ", b"-inf ", b"1e999 ", b"-1 ", b"0", b"1", b" ", b"\n", b"\r\n", b"9999999999", b"1_0", b"Pf")
TEXT += (b"extrinsic", b"\0", b"\xff", b"9" * 400)
BINARY = (b"\0", b"\x01", b"\xff", b"\0" * 8, b"\xff" * 8, b"\x80" * 8, b"\xff\xff\xff\x7f", b"-1 ", b"nan ")
BINARY += tuple(struct.pack(kind, value) for kind in ("<f", "<d") for value in (float("nan"), float("inf")))
PROTOBUF = (b"\xff" * 10, b"\x80", b"\0", b"\x0a", b"\x12", b"\x7f", b"\xff\xff\xff\xff\x0f")
PROTOBUF += (struct.pack("<d", float("nan")),)

Edit = tuple[float, str, Any]


def edits(words: Sequence[bytes] = BINARY) -> st.SearchStrategy[list[Edit]]:
    """Draw up to four edits of any bytes: where, as a share of them, what is done, and with what."""
    place, piece = st.floats(0, 1), st.sampled_from(words) | st.binary(min_size=1, max_size=9)
    kinds = {
        "put": piece,
        "insert": piece,
        "flip": st.integers(0, 7),
        "cut": st.integers(1, 12) | st.integers(1, 200),
        "end": st.none(),
    }
    return st.lists(
        st.one_of(*(st.tuples(place, st.just(kind), value) for kind, value in kinds.items())), max_size=4
    )


def edited(data: bytes, changes: Sequence[Edit]) -> bytes:
    """Return the bytes with edits made one after another."""
    out = bytearray(data)
    for place, kind, value in changes:
        at = int(place * len(out))
        if kind == "put":
            out[at : at + len(value)] = value
        elif kind == "insert":
            out[at:at] = value
        elif kind == "flip":
            out[at : at + 1] = bytes(byte ^ 1 << value for byte in out[at : at + 1])
        elif kind == "cut":
            del out[at : at + value]
        else:
            del out[at:]
    return bytes(out)


def damaged(data: bytes, words: Sequence[bytes] = BINARY) -> st.SearchStrategy[bytes]:
    """Draw the bytes with up to four edits."""
    return edits(words).map(lambda changes: edited(data, changes))


@st.composite
def pngs(draw: st.DrawFn, seed: bytes) -> bytes:
    """Draw a PNG whose chunks are damaged and then given right checksums, so that damage reaches the decoder."""
    out, at = seed[:8], 8
    while at < len(seed):
        (length,) = struct.unpack_from(">I", seed, at)
        chunk = seed[at + 4 : at + 8 + length]
        chunk = (draw(damaged(chunk)) if draw(st.booleans()) else chunk).ljust(4, b"x")
        out += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return out


def json_values(names: Sequence[str]) -> st.SearchStrategy[Any]:
    """Draw anything that JSON can say, and more; objects have some of the names."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=4)
        ),
        max_leaves=12,
    )


@st.composite
def json_objects(draw: st.DrawFn, example: dict[str, Any]) -> dict[str, Any]:
    """Draw an object like the example with up to three values, its own or of objects in it, replaced by anything."""
    out = copy.deepcopy(example)
    for _ in range(draw(st.integers(0, 3))):
        holder = draw(st.sampled_from([out, *(v for v in out.values() if isinstance(v, dict) and v)]))
        holder[draw(st.sampled_from(sorted(holder)))] = draw(json_values([*example, "path", "size", "R"]))
    return out


def check(read: Callable[[], object]) -> None:
    """Fail for anything but success or one of datakit's own errors, and for much memory."""
    watch = COUNT <= 1000
    if watch:
        tracemalloc.start()
    try:
        read()
    except DatakitError as error:
        assert error.what and str(error)
    finally:
        if watch:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert not watch or peak < MAX_BYTES
