"""TFRecord framing, tf.train.Example and TIFF on their own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from converters.kubric import example
from converters.kubric.example import Feature, decode_floats, decode_ints, parse_example
from converters.kubric.tiff import read_tiff_float32
from converters.kubric.write_example import serialise_example
from converters.kubric.write_tfds import frame_record
from converters.native.tfrecord import OVERHEAD, masked_crc, read_record, walk_records
from datakit.errors import FormatError

INT64 = st.integers(-(2**63), 2**63 - 1)


def test_masked_crc_of_the_standard_check_string() -> None:
    # CRC-32C("123456789") = 0xe3069283 (RFC 3720, B.4), then rotated and offset by hand.
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


@given(payloads=st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=30)
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("r") / "shard"
    path.write_bytes(b"".join(map(frame_record, payloads)))
    spans = list(walk_records(path))
    assert [read_record(path, span, check_crc=True)[0] for span in spans] == payloads
    assert [span.length - OVERHEAD for span in spans] == [len(p) for p in payloads]


@given(values=st.lists(INT64, max_size=200), slice_bytes=st.integers(10, 64))
@settings(max_examples=80)
def test_integers_decode_as_protobuf_wrote_them(values: list[int], slice_bytes: int) -> None:
    payload = serialise_example({"x": np.array(values, dtype=np.int64)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "_SLICE", slice_bytes)  # so that integers straddle the slices
        assert decode_ints(parse_example(payload, "t")["x"], np.int64, "t").tolist() == values


@given(
    values=arrays.arrays(np.float32, st.integers(0, 50)), texts=st.lists(st.binary(max_size=40), max_size=6)
)
@settings(max_examples=40)
def test_floats_and_bytes_decode_as_protobuf_wrote_them(values: np.ndarray, texts: list[bytes]) -> None:
    features = parse_example(serialise_example({"f": values, "b": texts}), "t")
    assert np.array_equal(decode_floats(features["f"], "x"), values, equal_nan=True)
    assert [bytes(chunk) for chunk in features["b"].chunks] == texts


def test_unpacked_lists_are_read_too() -> None:
    # Int64List {value: 5, value: 300} and FloatList {value: 1.0} without packing: tags 0x08 and 0x0d.
    ints = bytes([0x08, 5, 0x08, 0xAC, 0x02])
    floats = b"\x0d" + np.float32(1).tobytes()

    def entry(key: bytes, tag: int, block: bytes) -> bytes:
        feature = bytes([tag, len(block)]) + block
        inner = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(inner)]) + inner

    body = entry(b"i", 0x1A, ints) + entry(b"f", 0x12, floats)
    features = parse_example(b"\x0a" + bytes([len(body)]) + body, "t")
    assert decode_ints(features["i"], np.int64, "t").tolist() == [5, 300]
    assert decode_floats(features["f"], "x").tolist() == [1.0]


def test_floats_that_are_cut_off_are_refused() -> None:
    with pytest.raises(FormatError, match="cut off"):
        decode_floats(Feature("floats", [memoryview(b"abc")]), "x")


@given(data=st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        features = parse_example(data, "t")
    except FormatError:
        return
    for feature in features.values():
        if feature.kind == "ints":
            try:
                decode_ints(feature, np.int64, "t")
            except FormatError:
                return


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_byte_order(order: str) -> None:
    image = np.arange(12, dtype=f"{order}f4").reshape(3, 4)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + np.array(8, f"{order}u4").tobytes()
    tags = [
        (256, 3, 4),
        (257, 3, 3),
        (258, 3, 32),
        (259, 3, 1),
        (273, 4, 110),
        (278, 3, 3),
        (279, 4, 48),
        (339, 3, 3),
    ]
    block = np.array(len(tags), f"{order}u2").tobytes()
    for tag, kind, value in tags:
        field = np.array(value, f"{order}u{2 if kind == 3 else 4}").tobytes().ljust(4, b"\0")
        block += np.array([tag, kind], f"{order}u2").tobytes() + np.array(1, f"{order}u4").tobytes() + field
    data = (head + block + bytes(4)).ljust(110, b"\0") + image.tobytes()
    assert np.array_equal(read_tiff_float32(data, "t"), image)
    with Image.open(io.BytesIO(data)) as official:
        assert np.array_equal(np.array(official), image)


def test_tiff_in_several_strips(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    Image.fromarray(image).save(tmp_path / "a.tiff", strip_size=4096)
    data = (tmp_path / "a.tiff").read_bytes()
    assert np.array_equal(read_tiff_float32(data, "t"), image)


@pytest.mark.parametrize(
    ("array", "options"),
    [(np.zeros((4, 4), np.uint8), {}), (np.zeros((4, 4), np.float32), {"compression": "tiff_lzw"})],
    ids=["8 bit", "compressed"],
)
def test_tiffs_of_other_kinds_are_refused(array: np.ndarray, options: dict[str, str]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="TIFF", **options)
    with pytest.raises(FormatError, match="float32"):
        read_tiff_float32(buffer.getvalue(), "t")


@given(data=st.binary(max_size=120))
@settings(max_examples=200)
def test_any_bytes_are_a_tiff_or_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_tiff_float32(b"II*\x00" + data, "t")
