from __future__ import annotations

import numpy as np
import pytest

from datakit.errors import ShardError
from datakit.shards import codecs


def header(**layers: object) -> dict[str, object]:
    return {"key": "k", "size": [6, 4], **layers}


@pytest.mark.parametrize("z_max", [0.5000001, 3.0, 80.0, 15000.0])
def test_depth_error_stays_below_the_stated_bound(z_max: float) -> None:
    rng = np.random.default_rng(0)
    z = np.exp(rng.uniform(np.log(0.5), np.log(z_max), (300, 400))).astype(np.float32)
    z[rng.random(z.shape) < 0.1] = np.nan
    known = np.isfinite(z)
    codec = codecs.depth_codec(float(z[known].min()), float(z[known].max()), exact=False)
    assert codec["codec"] == "log16"
    assert codec["max_relative_error"] <= codecs.MAX_DEPTH_ERROR
    layer = codec | {"size": [400, 300]}
    back = codecs.decode_depth(codecs.encode_depth(z, codec), header(z_depth=layer))
    assert back.dtype == np.float32
    assert np.array_equal(np.isnan(back), ~known)
    error = np.abs(back[known].astype(np.float64) / z[known] - 1).max()
    assert error <= codec["max_relative_error"]
    # The bound is tight, not just generous.
    assert error > 0.9 * codec["max_relative_error"] - 1.2e-7


def test_wide_depth_range_and_request_keep_every_bit() -> None:
    z = np.array([[1e-3, 5e4, np.nan, 7.0]], np.float32)
    for codec in (codecs.depth_codec(1e-3, 5e4, exact=False), codecs.depth_codec(7.0, 7.5, exact=True)):
        assert codec["codec"] == "float32"
        assert codec["max_relative_error"] == 0
        back = codecs.decode_depth(codecs.encode_depth(z, codec), header(z_depth=codec | {"size": [4, 1]}))
        assert np.array_equal(back.view(np.uint32), z.view(np.uint32))


def test_values_that_are_no_depth_become_unknown() -> None:
    z = np.array([[0.0, -1.0, np.inf, 2.0]], np.float32)
    for exact in (False, True):
        codec = codecs.depth_codec(2.0, 2.0, exact=exact)
        back = codecs.decode_depth(codecs.encode_depth(z, codec), header(z_depth=codec | {"size": [4, 1]}))
        assert np.array_equal(np.isnan(back), [[True, True, True, False]])
        assert back[0, 3] == pytest.approx(2.0, rel=1e-7)


def test_all_unknown_depth() -> None:
    codec = codecs.depth_codec(np.inf, 0.0, exact=False)
    blob = codecs.encode_depth(np.full((4, 6), np.nan, np.float32), codec)
    assert np.isnan(codecs.decode_depth(blob, header(z_depth=codec | {"size": [6, 4]}))).all()


def test_normals_error_is_at_most_four_thousandths_of_a_degree() -> None:
    rng = np.random.default_rng(1)
    n = rng.normal(size=(200, 300, 3))
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    n[0, :6] = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]
    unknown = rng.random((200, 300)) < 0.2
    unknown[0, :6] = False
    n[unknown] = np.nan
    back = codecs.decode_normals(codecs.encode_normals(n), header(normals={"size": [300, 200]}))
    assert np.array_equal(np.isnan(back).any(axis=-1), unknown)
    chord = np.linalg.norm(back[~unknown] - n[~unknown], axis=-1)
    angle = np.degrees(2 * np.arcsin(chord / 2))
    assert angle.max() < 0.004
    assert 2e-4 < angle.mean() < 2e-3


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255), ("uint16", 65535), ("uint32", 2**32 - 1)])
def test_instances_are_exact(dtype: str, largest: int) -> None:
    labels = np.random.default_rng(2).integers(0, largest, (4, 6), np.uint32, endpoint=True)
    back = codecs.decode_instances(
        codecs.encode_instances(labels, dtype), header(instances={"size": [6, 4], "dtype": dtype})
    )
    assert back.dtype == dtype
    assert np.array_equal(back, labels)


def test_jpeg_comes_back_in_rgb_order() -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:] = 200, 100, 30
    assert np.abs(codecs.decode_rgb(codecs.encode_jpeg(rgb, 95), header()).astype(int) - rgb).max() <= 3


def test_damaged_frames_are_typed_errors() -> None:
    codec = codecs.depth_codec(1, 2, exact=False)
    depth = codecs.encode_depth(np.ones((4, 6), np.float32), codec)
    labels = codecs.encode_instances(np.ones((4, 6), np.uint8), "uint8")
    head = header(
        z_depth=codec | {"size": [6, 5]},
        instances={"size": [6, 5], "dtype": "uint8"},
        normals={"size": [6, 4]},
    )
    for decode, blob in (
        (codecs.decode_depth, depth),  # another size than the header says
        (codecs.decode_depth, b"nonsense"),
        (codecs.decode_instances, labels),
        (codecs.decode_instances, b"nonsense"),
        (codecs.decode_normals, labels),
        (codecs.decode_rgb, codecs.encode_jpeg(np.zeros((5, 6, 3), np.uint8), 95)),
        (codecs.decode_rgb, b"nonsense"),
    ):
        with pytest.raises(ShardError):
            decode(blob, head)


def test_frame_pack_layout_and_damage() -> None:
    data = codecs.pack([b"abc", b"", b"de"])
    assert data[:8] == b"DKP1\x03\x00\x00\x00"
    assert np.frombuffer(data[8:40], "<u8").tolist() == [0, 3, 3, 5]
    assert data[40:] == b"abcde"
    for bad in (b"", data[:-1], data + b"x", b"DKP2" + data[4:], data[:20]):
        with pytest.raises(ShardError):
            codecs.unpack(bad)
    huge = data[:4] + b"\xff\xff\xff\xff" + data[8:]
    with pytest.raises(ShardError):
        codecs.unpack(huge)


def test_header_must_be_that_of_a_clip() -> None:
    for bad in (b"[]", b"{", b"\xff", b'{"a": 1}'):
        with pytest.raises(ShardError):
            codecs.decode_clip_header(bad)
