"""Bytes of the members of a sample: frame packs, colour, depth, instances, normals, headers.

The `decode_*` functions take the parsed `clip.json`, which says how each layer was coded.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pcodec
import zstandard
from numpy.typing import NDArray
from pcodec import standalone

from datakit.errors import ShardError

_MAGIC = b"DKP1"
#: Level and filter were chosen by measurement: near the smallest and near the fastest of the codecs tried.
_PCO_LEVEL, _ZSTD_LEVEL = 6, 5
#: Log-quantised depth has codes 1..65535; 0 is unknown.
_DEPTH_STEPS = 65534
#: A clip whose depth range would need a larger relative error than this keeps its float32 values.
MAX_DEPTH_ERROR = 8e-5
_NORMAL_STEPS, _NORMAL_UNKNOWN = 65534, 0xFFFF
#: Columns after which differences begin anew: a pixel is read by summing up no more than these. Measured: 2 % larger.
NORMAL_RESTART = 32

Header = Mapping[str, Any]
Blob = bytes | bytearray | memoryview


def pack(blobs: Sequence[Blob]) -> bytes:
    """Join one blob a frame: magic, u32 count, (count + 1) u64 offsets into the payload, payload.

    >>> [bytes(b) for b in unpack(pack([b"a", b"", b"bc"]))]
    [b'a', b'', b'bc']
    """
    offsets = np.zeros(len(blobs) + 1, "<u8")
    offsets[1:] = np.cumsum([len(b) for b in blobs])
    return b"".join([_MAGIC, struct.pack("<I", len(blobs)), offsets.tobytes(), *blobs])


def unpack(data: Blob) -> list[memoryview]:
    """Split a frame pack without copying.

    Raises:
        ShardError: The bytes are no frame pack.
    """
    view = memoryview(data)
    if len(view) < 16 or view[:4] != _MAGIC:
        raise ShardError("Not a frame pack", expected=_MAGIC, found=bytes(view[:4]))
    (count,) = struct.unpack_from("<I", view, 4)
    start = 8 + 8 * (count + 1)
    offsets = np.frombuffer(view[8:start], "<u8").astype(np.int64) if start <= len(view) else np.zeros(0, int)
    is_sound = len(offsets) == count + 1 and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not is_sound or offsets[-1] != len(view) - start:
        raise ShardError(
            "Frame pack has wrong offsets", expected=f"{count} frames", found=f"{len(view)} bytes"
        )
    return [view[start + a : start + b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def decode_clip_header(data: Blob) -> dict[str, Any]:
    """Parse `clip.json`.

    Raises:
        ShardError: It is not the JSON of a clip.
    """
    try:
        header = json.loads(bytes(data))
    except ValueError as error:
        raise ShardError("clip.json cannot be parsed", found=error) from error
    if not isinstance(header, dict) or "key" not in header:
        raise ShardError("clip.json is not a clip's header", expected="an object with a key")
    return header


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Encode (H, W, 3) RGB without chroma subsampling."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ValueError(f"OpenCV cannot write a JPEG of shape {rgb.shape}")
    return bytes(data)


def decode_rgb(blob: Blob, header: Header) -> NDArray[np.uint8]:
    """Decode a frame of `rgb.pack`: (H, W, 3) uint8 RGB.

    Raises:
        ShardError: The bytes are no image of the clip's size.
    """
    # A JPEG's orientation tag must not turn the frame away from its camera.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(np.frombuffer(blob, np.uint8), flags)
    width, height = header["size"]
    if bgr is None or bgr.shape != (height, width, 3):
        raise ShardError(
            "Frame cannot be decoded",
            where=header["key"],
            expected=(height, width, 3),
            found=None if bgr is None else bgr.shape,
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr).astype(np.uint8, copy=False)


def depth_codec(z_min: float, z_max: float, exact: bool) -> dict[str, Any]:
    """Choose how a clip's depth is coded.

    Args:
        z_min: Smallest known depth of the clip; NaN where nothing is known.
        z_max: Largest.
        exact: Ask for float32.

    Returns:
        For `clip.json`: codec "log16" or "float32", z_min, z_max, max_relative_error (of the known values).
    """
    if not np.isfinite(z_min):
        z_min = z_max = 1.0
    error = float(np.expm1(np.log(z_max / z_min) / _DEPTH_STEPS / 2) + 2.0**-24)
    if exact or error > MAX_DEPTH_ERROR:
        return {"codec": "float32", "z_min": z_min, "z_max": z_max, "max_relative_error": 0.0}
    return {"codec": "log16", "z_min": z_min, "z_max": z_max, "max_relative_error": error}


def encode_depth(z_depth: NDArray[np.float32], codec: Header) -> bytes:
    """Encode (H, W) depth by the codec from `depth_codec`; non-positive and non-finite values are unknown."""
    config = pcodec.ChunkConfig(compression_level=_PCO_LEVEL)
    z = np.ascontiguousarray(z_depth, np.float32).ravel()
    if codec["codec"] == "float32":
        return standalone.simple_compress(np.where(_is_depth(z), z, np.float32(np.nan)), config)
    known = _is_depth(z)
    codes = np.zeros(z.shape, np.uint16)
    span = np.log(codec["z_max"] / codec["z_min"])
    share = np.log(z[known].astype(np.float64) / codec["z_min"]) / (span or 1.0)
    codes[known] = (np.rint(np.clip(share, 0, 1) * _DEPTH_STEPS) + 1).astype(np.uint16)
    return standalone.simple_compress(codes, config)


def _is_depth(z: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.isfinite(z) & (z > 0)


def depth_dtype(header: Header) -> np.dtype[Any]:
    """Type of the stored samples of a clip's depth: uint16 codes for codec "log16", else float32."""
    return np.dtype(np.uint16 if header["z_depth"]["codec"] == "log16" else np.float32)


def decode_depth_codes(blob: Blob, header: Header, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Decode a frame of `z_depth.pack` to its stored samples.

    Args:
        blob: The frame's bytes.
        header: The clip's.
        out: (H, W) contiguous memory of `depth_dtype` to decode into; None for new memory.

    Returns:
        (H, W) `depth_dtype`: turn the samples you need into depth with `depth_from_codes`.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    width, height = header["z_depth"]["size"]
    if out is None:
        out = np.empty((height, width), depth_dtype(header))
    try:
        done = standalone.simple_decompress_into(bytes(blob), out.reshape(-1))
    except Exception as error:  # pcodec raises its own kinds, a Rust panic among them
        raise ShardError("Depth frame cannot be decoded", where=header["key"], found=error) from error
    if done.n_processed != width * height or not done.finished:
        raise ShardError(
            "Depth frame has other samples",
            where=header["key"],
            expected=f"{width * height} {out.dtype}",
            found=f"{done.n_processed}" if done.finished else "more",
        )
    return out


def depth_from_codes(codes: NDArray[Any], header: Header) -> NDArray[np.float32]:
    """Turn stored samples of any shape into depth: float32, NaN unknown."""
    if header["z_depth"]["codec"] == "float32":
        return np.asarray(codes, np.float32)
    from .codec_kernels import multiply_factors

    coarse, fine = _depth_factors(header["z_depth"]["z_min"], header["z_depth"]["z_max"])
    flat = np.ascontiguousarray(codes, np.uint16).reshape(-1)
    depth: NDArray[np.float32] = multiply_factors(flat, coarse, fine)
    return depth.reshape(np.shape(codes))


@lru_cache(8)
def _depth_factors(z_min: float, z_max: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell what the upper and the lower byte of a code stand for: depth is the product of both.

    exp(256 a + b) = exp(256 a) exp(b): every clip has a range of its own, and 65,536 exponentials are dear.
    """
    step = np.log(z_max / z_min) / _DEPTH_STEPS
    return z_min * np.exp((256 * np.arange(256) - 1) * step), np.exp(np.arange(256) * step)


def decode_depth(blob: Blob, header: Header) -> NDArray[np.float32]:
    """Decode a frame of `z_depth.pack`: (H, W) float32 along the optical axis, NaN unknown.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    return depth_from_codes(decode_depth_codes(blob, header), header)


def encode_instances(instances: NDArray[np.integer[Any]], dtype: str) -> bytes:
    """Encode an (H, W) label raster as `dtype`, which must hold its largest label."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(
        np.ascontiguousarray(instances, dtype).tobytes()
    )


def instances_dtype(header: Header) -> np.dtype[Any]:
    """Type of a clip's labels."""
    return np.dtype(header["instances"]["dtype"]).newbyteorder("<")


def decode_instances(
    blob: Blob, header: Header, out: NDArray[Any] | None = None
) -> NDArray[np.unsignedinteger[Any]]:
    """Decode a frame of `instances.pack`: (H, W) uint8, uint16 or uint32 labels, 0 = background.

    Args:
        blob: The frame's bytes.
        header: The clip's.
        out: (H, W) contiguous memory of `instances_dtype` to decode into; None for new memory.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    width, height = header["instances"]["size"]
    return _inflate(blob, np.empty((height, width), instances_dtype(header)) if out is None else out, header)


class _Zstd(threading.local):
    """One decompressor a thread: making one costs as much as decompressing a frame of labels."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def _inflate(blob: Blob, out: NDArray[Any], header: Header) -> NDArray[Any]:
    """Decompress into memory that the data must fill exactly."""
    try:
        # Given all of the output's memory at once, zstd writes to it directly.
        with _zstd.decompressor.stream_reader(blob) as data:
            size = data.readinto(out.reshape(-1).view(np.uint8))
            has_more = bool(data.read(1))
    except zstandard.ZstdError as error:
        raise ShardError("Frame cannot be decompressed", where=header["key"], found=error) from error
    if size != out.nbytes or has_more:
        raise ShardError(
            "Frame has another size",
            where=header["key"],
            expected=f"{out.nbytes} bytes",
            found="more" if has_more else f"{size} bytes",
        )
    return out


def encode_normals(normals: NDArray[np.floating[Any]]) -> bytes:
    """Encode (H, W, 3) unit normals: octahedral, 2 x 16 bit, planar, differences along x, begun anew, zstd.

    The octahedral map is that of Cigolle et al., "A Survey of Efficient Representations for Independent Unit
    Vectors" (JCGT 2014); non-finite normals get the code 0xFFFF in both channels.
    """
    x, y, z = np.ascontiguousarray(np.moveaxis(np.asarray(normals, np.float32), -1, 0))
    norm = np.abs(x) + np.abs(y) + np.abs(z)
    known = np.isfinite(norm) & (norm > 0)
    norm[~known] = 1
    flat = np.stack([x, y]) / norm
    flat[:, ~known] = 0
    below = known & (z < 0)
    flat[:, below] = np.copysign(1 - np.abs(flat[::-1, below]), flat[:, below])
    codes = np.rint((flat + 1) * np.float32(_NORMAL_STEPS / 2)).astype(np.uint16)
    codes[:, ~known] = _NORMAL_UNKNOWN
    planes = codes.copy()
    planes[:, :, 1:] -= codes[:, :, :-1]  # wraps around; so does the sum that undoes it
    planes[:, :, ::NORMAL_RESTART] = codes[:, :, ::NORMAL_RESTART]
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(planes.astype("<u2", copy=False).tobytes())


def decode_normal_differences(
    blob: Blob, header: Header, out: NDArray[np.uint16] | None = None
) -> NDArray[np.uint16]:
    """Decode a frame of `normals.pack` to the differences of its codes along x.

    Args:
        blob: The frame's bytes.
        header: The clip's.
        out: (2, H, W) contiguous memory to decode into; None for new memory.

    Returns:
        (2, H, W) uint16, for `sum_differences`.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    width, height = header["normals"]["size"]
    return _inflate(blob, np.empty((2, height, width), "<u2") if out is None else out, header)


def decode_normal_codes(blob: Blob, header: Header) -> NDArray[np.uint16]:
    """Decode a frame of `normals.pack` to its (2, H, W) codes; `normals_from_codes` turns the ones you need.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    return sum_differences(decode_normal_differences(blob, header))


def sum_differences(differences: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Turn differences (..., W) into codes: sums, modulo 2^16, from the last multiple of `NORMAL_RESTART` on."""
    codes = np.empty_like(differences)
    for first in range(0, codes.shape[-1], NORMAL_RESTART):
        block = np.s_[..., first : first + NORMAL_RESTART]
        np.cumsum(differences[block], axis=-1, dtype=np.uint16, out=codes[block])
    return codes


def normals_from_codes(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn (2, ...) codes into (..., 3) float32 unit normals in the world frame, NaN unknown."""
    from .codec_kernels import unfold_octahedron

    x, y = np.ascontiguousarray(codes, np.uint16).reshape(2, -1)
    normals: NDArray[np.float32] = unfold_octahedron(x, y, 2 / _NORMAL_STEPS, _NORMAL_UNKNOWN)
    return normals.reshape(*codes.shape[1:], 3)


def decode_normals(blob: Blob, header: Header) -> NDArray[np.float32]:
    """Decode a frame of `normals.pack`: (H, W, 3) float32 unit normals in the world frame, NaN unknown.

    Raises:
        ShardError: The bytes are no frame of this clip.
    """
    return normals_from_codes(decode_normal_codes(blob, header))
