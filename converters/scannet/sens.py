"""`.sens` files, version 4: an index from one pass over the frame headers, then frame by frame.

Little endian, no padding (SensReader/c++/src/sensorData.h:1058-1109 and :1250-1290, SensReader/python/SensorData.py).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, inside
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError
from datakit.scene import check_image
from datakit.scene.deflate import inflate
from datakit.scene.records import Frame, SceneStream, SourceFile

from . import assemble
from .assemble import Calibration, Float, Size
from .card import VIEW
from .params import Params
from .texts import scan_metadata

VERSION = 4
COLOUR_NAMES = {-1: "unknown", 0: "raw", 1: "png", 2: "jpeg"}
DEPTH_NAMES = {-1: "unknown", 0: "raw_ushort", 1: "zlib_ushort", 2: "occi_ushort"}
#: Colour compressions whose bytes pass through, with the layer's codec.
_COLOUR_CODECS = {"png": "png", "jpeg": "jpeg"}
_DEPTH_READ = ("zlib_ushort", "raw_ushort")
_HEAD = struct.Struct("<IQ")
_REST = struct.Struct("<64fiiIIIIfQ")
_FRAME = struct.Struct("<16fQQQQ")
#: 15 float64 and one uint64 (sensorData.h:786-833).
_IMU_BYTES = 128
_COUNT = struct.Struct("<Q")
_MAX_NAME = 1 << 16
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SensHeader:
    """The head of a .sens file.

    Attributes:
        sensor: Name of the sensor.
        intrinsic_color: (4, 4), integer pixel centres, as stored; likewise the next three.
        extrinsic_color: (4, 4).
        intrinsic_depth: (4, 4).
        extrinsic_depth: (4, 4).
        colour: Name of the colour compression.
        depth: Name of the depth compression.
        colour_size: (W, H).
        depth_size: (W, H).
        depth_shift: Depth codes per metre.
        num_frames: As the file says.
        num_bytes: Of the head: where the first frame begins.
    """

    sensor: str
    intrinsic_color: Float
    extrinsic_color: Float
    intrinsic_depth: Float
    extrinsic_depth: Float
    colour: str
    depth: str
    colour_size: Size
    depth_size: Size
    depth_shift: float
    num_frames: int
    num_bytes: int


@dataclass(frozen=True)
class SensIndex:
    """Where every frame of a .sens file is, and what its frame headers say.

    Attributes:
        header: The file's head.
        offsets: (T + 1,) int64, where each frame's header begins; the last is where the IMU block does.
        colour_bytes: (T,) int64 sizes of the colour payloads; depth follows colour.
        camera_to_world: (T, 4, 4) float64 as stored.
        timestamps: (T,) uint64, of colour.
        num_imu: Records in the IMU block.
    """

    header: SensHeader
    offsets: NDArray[np.int64]
    colour_bytes: NDArray[np.int64]
    camera_to_world: Float
    timestamps: NDArray[np.uint64]
    num_imu: int


def read_header(file: BinaryIO, where: str) -> SensHeader:
    """Read the head of a .sens file.

    Raises:
        FormatError: Truncated, of another version, or with a compression that is not read (each by its name).
    """
    version, name_length = _HEAD.unpack(_exactly(file, _HEAD.size, where, "the file's head"))
    if version != VERSION:
        old = "3, which has no IMU block" if version == 3 else f"{version}, the old .sensor format"
        raise FormatError(
            "A .sens file of a version that is not read.",
            where=f"{where}: version",
            expected=VERSION,
            found=old if version < VERSION else version,
            mend="Download the scan of the ScanNet v2 release.",
        )
    if name_length > _MAX_NAME:
        raise FormatError("A .sens file's sensor name is absurdly long.", where=where, found=name_length)
    sensor = _exactly(file, name_length, where, "the sensor's name").decode("ascii", errors="replace")
    values = _REST.unpack(_exactly(file, _REST.size, where, "the file's head"))
    matrices = np.array(values[:64], np.float64).reshape(4, 4, 4)
    colour_code, depth_code, *sizes, shift, num_frames = values[64:]
    return SensHeader(
        sensor=sensor,
        intrinsic_color=matrices[0],
        extrinsic_color=matrices[1],
        intrinsic_depth=matrices[2],
        extrinsic_depth=matrices[3],
        colour=_compression(colour_code, COLOUR_NAMES, tuple(_COLOUR_CODECS), "colour", where),
        depth=_compression(depth_code, DEPTH_NAMES, _DEPTH_READ, "depth", where),
        colour_size=check_size(sizes[0], sizes[1], "Colour", where),
        depth_size=check_size(sizes[2], sizes[3], "Depth", where),
        depth_shift=shift,
        num_frames=num_frames,
        num_bytes=_HEAD.size + name_length + _REST.size,
    )


def _compression(code: int, names: dict[int, str], read: tuple[str, ...], what: str, where: str) -> str:
    name = names.get(code, "undefined")
    if name not in read:
        raise FormatError(
            f"A .sens file with a {what} compression that is not read.",
            where=f"{where}: {what} compression",
            expected=" or ".join(read),
            found=f"{code} ({name})",
        )
    return name


def _exactly(file: BinaryIO, size: int, where: str, what: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise FormatError(
            "A .sens file is truncated.",
            where=f"{where}, byte {file.tell() - len(data)}: {what}",
            expected=f"{size} bytes",
            found=f"{len(data)} bytes",
            mend="Download the scan again.",
        )
    return data


def read_index(file: BinaryIO, where: str) -> SensIndex:
    """Walk the frame headers of a .sens file once, seeking over the payloads.

    Args:
        file: Opened for reading, at its beginning.
        where: Its name, for errors.

    Returns:
        The index; its memory grows with the frames that are there, not with what the head claims.

    Raises:
        FormatError: Truncated anywhere up to the end of the IMU block, bytes left over, or see `read_header`.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = read_header(file, where)
    if not header.num_frames:
        raise FormatError("A .sens file without frames.", where=where, expected="at least one frame", found=0)
    offsets, colour_bytes, heads = [header.num_bytes], [], []
    stamps: list[int] = []
    for t in range(header.num_frames):
        head = _FRAME.unpack(_exactly(file, _FRAME.size, where, f"frame {t} of {header.num_frames}"))
        stamp, _, num_colour, num_depth = head[16:]
        beyond = offsets[-1] + _FRAME.size + num_colour + num_depth
        if beyond > end:
            raise FormatError(
                "A .sens file is truncated.",
                where=f"{where}, byte {offsets[-1]}: frame {t} of {header.num_frames}",
                expected=f"{num_colour} bytes of colour and {num_depth} of depth",
                found=f"{end - offsets[-1] - _FRAME.size} bytes",
                mend="Download the scan again.",
            )
        heads.append(np.array(head[:16]))
        stamps.append(stamp)
        colour_bytes.append(num_colour)
        offsets.append(file.seek(beyond))
    (num_imu,) = _COUNT.unpack(_exactly(file, _COUNT.size, where, "the number of IMU records"))
    expected = offsets[-1] + _COUNT.size + num_imu * _IMU_BYTES
    if expected != end:
        raise FormatError(
            "A .sens file does not end with its IMU block.",
            where=f"{where}, byte {offsets[-1]}: {num_imu} IMU records",
            expected=f"{expected} bytes in all",
            found=f"{end} bytes",
            mend="Download the scan again.",
        )
    return SensIndex(
        header,
        np.array(offsets, np.int64),
        np.array(colour_bytes, np.int64),
        np.array(heads).reshape(-1, 4, 4),
        np.array(stamps, np.uint64),
        num_imu,
    )


def read_payloads(file: BinaryIO, index: SensIndex, t: int, where: str) -> tuple[bytes, bytes, bytes]:
    """Read one frame, in any order: its header, colour and depth bytes.

    Raises:
        FormatError: The file has shrunk since it was indexed.
    """
    start, beyond = (int(at) for at in index.offsets[t : t + 2])
    file.seek(start)
    block = _exactly(file, beyond - start, where, f"frame {t}")
    depth_at = _FRAME.size + int(index.colour_bytes[t])
    return block[: _FRAME.size], block[_FRAME.size : depth_at], block[depth_at:]


def decode_depth(data: bytes, header: SensHeader, where: str) -> NDArray[np.uint16]:
    """Decode a depth payload to its (H, W) codes.

    Raises:
        FormatError: Corrupt, or of another size than the head says. Nothing larger than that size, or than what
            the payload can expand to, is ever in memory.
    """
    width, height = header.depth_size
    size = 2 * width * height
    if header.depth != "raw_ushort":
        data = inflate(data, size, "A depth image", where, least=size)
    elif len(data) != size:
        raise FormatError(
            "A depth image has the wrong size.",
            where=where,
            expected=f"{size} bytes for {header.depth_size}",
            found=f"{len(data)} bytes",
        )
    return np.frombuffer(data, "<u2").reshape(height, width)


def calibration(header: SensHeader, where: str) -> Calibration:
    """Turn a head into the contract's calibration.

    Raises:
        ConventionError: An intrinsic matrix is none, depth is not registered, or depthShift is not positive.
    """
    assemble.check_registered(
        {"extrinsic_color": header.extrinsic_color, "extrinsic_depth": header.extrinsic_depth}, where
    )
    return Calibration(
        header.colour_size,
        header.depth_size,
        assemble.corner_k(header.intrinsic_color, header.colour_size, f"{where}: intrinsic_color"),
        assemble.corner_k(header.intrinsic_depth, header.depth_size, f"{where}: intrinsic_depth"),
        assemble.metres_per_code(header.depth_shift, f"{where}: depthShift"),
    )


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open a .sens file; see `Converter.read`."""
    relative = Path(ref.location["path"])
    path, sources = inside(root, relative), list[SourceFile]()
    try:
        with open(path, "rb") as file:
            index = read_index(file, str(path))
    except OSError as error:
        raise LayoutError("A .sens file cannot be read.", where=path, found=error.strerror) from error
    calib = calibration(index.header, str(path))
    names = [str(t) for t in range(index.header.num_frames)]
    poses, known = assemble.exact_poses(index.camera_to_world, str(path), names)
    measured, how = assemble.steady_times(index.timestamps)
    if params.timestamps == "never":
        measured, how = None, "not wanted"
    times = np.arange(len(names)) / params.frame_rate if measured is None else measured
    metadata = {
        "form": "sens",
        "sensor": index.header.sensor,
        "depth_shift": index.header.depth_shift,
        "times": how if measured is not None else f"frame / {params.frame_rate:g} Hz: {how}",
        "first_timestamp": int(index.timestamps[0]),
        "num_imu": index.num_imu,
        **scan_metadata(root, relative.with_suffix(".txt"), sources),
    }
    record = assemble.scene_record(
        ref,
        params,
        calib,
        codec=_COLOUR_CODECS[index.header.colour],
        poses=poses,
        known=known,
        times=times,
        names=names,
        metadata=metadata,
    )
    return SceneStream(record, _frames(path, relative, index, calib, sources), sources)


def _frames(
    path: Path, relative: Path, index: SensIndex, calib: Calibration, sources: list[SourceFile]
) -> Iterator[Frame]:
    header, digest = index.header, hashlib.sha256()
    with open(path, "rb") as file:
        digest.update(_exactly(file, header.num_bytes, str(path), "the file's head"))
        for t in range(header.num_frames):
            where = f"{path}, frame {t}"
            head, colour, depth = read_payloads(file, index, t, str(path))
            for part in (head, colour, depth):
                digest.update(part)
            size = check_image(_COLOUR_CODECS[header.colour], colour, f"{where}: colour")
            if size != header.colour_size:
                raise FormatError(
                    "An image has another size than the file's head says.",
                    where=f"{where}: colour",
                    expected=header.colour_size,
                    found=size,
                )
            codes = decode_depth(depth, header, f"{where}: depth")
            yield Frame(VIEW, t, {"rgb": colour, "z_depth": codes})
        while rest := file.read(_CHUNK):
            digest.update(rest)
        total = file.tell()
    sources.append(SourceFile(relative.as_posix(), total, digest.hexdigest()))
