import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datakit import FormatError
from datakit.scene import check_png, decode_image, encode_png
from datakit.scene.codecs import jpeg_head


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_is_lossless_in_every_form(shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    data = encode_png(array)
    assert check_png(data, "x") == (7, 5)
    found = decode_image(data, "x")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_channels_are_red_green_blue_for_others_too() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    array[..., 0] = 200
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    assert decode_image(buffer.getvalue(), "x")[0, 0].tolist() == [200, 0, 0]
    assert np.asarray(Image.open(io.BytesIO(encode_png(array))))[0, 0].tolist() == [200, 0, 0]
    jpeg = cv2.imencode(".jpg", array[..., ::-1])[1].tobytes()
    assert decode_image(jpeg, "x")[0, 0, 0] > 190


def test_palette_png_gives_indices_not_colours() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), mode="P")
    image.putpalette([9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert decode_image(buffer.getvalue(), "x").tolist() == [[0, 1], [2, 3]]


@given(st.data())
def test_any_damage_to_a_png_is_found(data: st.DataObject) -> None:
    good = encode_png(np.arange(300, dtype=np.uint16).reshape(10, 30))
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes([good[at] ^ (1 << data.draw(st.integers(0, 7)))]) + good[at + 1 :]
    with pytest.raises(FormatError):
        decode_image(bad, "file.png")


def test_errors_name_the_file_and_the_place() -> None:
    good = encode_png(np.zeros((4, 4), np.uint8))
    with pytest.raises(FormatError, match="truncated") as error:
        check_png(good[:-5], "scene/rgba_00003.png")
    assert "scene/rgba_00003.png, byte" in error.value.where
    wrong_crc = good[:29] + bytes([good[29] ^ 1]) + good[30:]
    with pytest.raises(FormatError, match="CRC") as error:
        check_png(wrong_crc, "x")
    assert error.value.expected.startswith("0x") and error.value.found.startswith("0x")


def test_forged_size_is_refused_before_anything_is_allocated() -> None:
    import zlib

    good = bytearray(encode_png(np.zeros((4, 4), np.uint8)))
    good[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    good[29:33] = zlib.crc32(good[12:29]).to_bytes(4, "big")
    with pytest.raises(FormatError, match="absurd size"):
        decode_image(bytes(good), "x")


def test_truncated_jpeg_is_refused() -> None:
    good = cv2.imencode(".jpg", np.full((40, 40, 3), 99, np.uint8))[1].tobytes()
    assert decode_image(good, "x").shape == (40, 40, 3)
    assert decode_image(good + b"\0\0", "x").shape == (40, 40, 3)  # padding after the end is common
    for bad in (good[:-2], good[: len(good) // 2], b"", b"GIF89a"):
        with pytest.raises(FormatError):
            decode_image(bad, "x")


@pytest.mark.parametrize(
    ("mode", "components", "options"),
    [
        ("L", 1, {}),
        ("RGB", 3, {"exif": b"Exif\0\0" + b"x" * 900}),
        ("RGB", 3, {"progressive": True}),
        ("CMYK", 4, {}),
    ],
)
def test_the_head_of_a_jpeg_is_read_without_decoding(mode: str, components: int, options: dict) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (37, 23)).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    assert jpeg_head(data, "x") == ((37, 23), components)
    # Fill bytes may stand before any marker, and zeros after the end.
    assert jpeg_head(data[:2] + b"\xff\xff" + data[2:] + b"\0\0", "x") == ((37, 23), components)


def test_forged_heads_of_jpegs_are_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (37, 23)).save(buffer, "JPEG")
    data = buffer.getvalue()
    at = data.index(b"\xff\xc0")
    forged = {
        "absurd": data[: at + 5] + b"\xff\xff\xff\xff" + data[at + 9 :],
        "of no height": data[: at + 5] + b"\0\0" + data[at + 7 :],
        "of 12 bits": data[: at + 4] + b"\x0c" + data[at + 5 :],
        "of 2 components": data[: at + 9] + b"\x02" + data[at + 10 :],
        "without a frame": data[:2] + b"\xff\xda" + data[4:],
        "with a segment of no length": data[:4] + b"\0\0" + data[6:],
        "nothing but ends": b"\xff\xd8\xff\xd9",
    }
    for name, bad in forged.items():
        with pytest.raises(FormatError):
            pytest.fail(f"{name}: {jpeg_head(bad, 'x')}")


def test_a_sound_png_vouches_for_no_other() -> None:
    good = encode_png(np.arange(300, dtype=np.uint16).reshape(10, 30))
    assert check_png(good, "x") == check_png(good, "x") == (30, 10)
    changed = bytearray(good)
    assert check_png(changed, "x") == (30, 10)
    changed[60] ^= 1  # the same object, and no longer sound
    for bad in (changed, bytes(changed)):
        with pytest.raises(FormatError, match="CRC"):
            check_png(bad, "x")


def test_a_png_with_two_headers_is_refused() -> None:
    """Found by fuzzing: Pillow believes the last one, of which nothing was checked."""
    png = encode_png(np.zeros((3, 4), np.uint8))
    with pytest.raises(FormatError, match="two headers"):
        decode_image(png[:33] + png[8:], "x")


def test_a_jpeg_that_claims_more_than_its_bytes_can_hold_is_refused() -> None:
    file = io.BytesIO()
    # One colour, and tables for it alone: nothing takes less.
    Image.new("RGB", (4096, 4096)).save(file, "JPEG", quality=1, progressive=True, optimize=True)
    good = file.getvalue()
    assert jpeg_head(good, "x")[0] == (4096, 4096)
    at = good.index(b"\x10\x00\x10\x00")
    with pytest.raises(FormatError, match="too short"):
        decode_image(good[:at] + b"\x38\x00\x48\x00" + good[at + 4 :], "x")


def test_a_png_that_claims_more_than_its_pixels_can_hold_is_refused() -> None:
    """Found by fuzzing: Pillow and OpenCV make room for what the header says, up to gigabytes for 91 bytes."""
    good = encode_png(np.zeros((1032 * 8, 1), np.uint8))
    assert decode_image(good, "x").shape == (1032 * 8, 1)  # zeros take least, and are not refused
    for kind in (b"\x08\0", b"\x10\x02", b"\x01\0", b"\x08\x03"):  # bits and colour type
        head = (60_000).to_bytes(4, "big") + (4_000).to_bytes(4, "big") + kind + b"\0\0\0"
        chunk = b"IHDR" + head
        data = good[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + good[33:]
        with pytest.raises(FormatError, match="too short"):
            decode_image(data, "x")


@pytest.mark.parametrize(("has_pixels", "tail"), [(False, b""), (True, b"xy")])
def test_a_png_that_ends_wrongly_is_refused(has_pixels: bool, tail: bytes) -> None:
    """Found by fuzzing: OpenCV read on behind such an end and took 2.8 GB for a chunk that claimed as much."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    png = encode_png(np.arange(12, dtype=np.uint16).reshape(3, 4))
    data = png[: 33 if not has_pixels else png.index(b"IEND") - 4] + chunk(b"IEND", tail)
    with pytest.raises(FormatError, match="ends wrongly"):
        decode_image(data + (2_803_892_224).to_bytes(4, "big") + b"IEND", "x")
