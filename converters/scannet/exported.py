"""Exported scans: the Python tool's folders, the C++ tool's flat files, and scannet_frames_25k."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, inside, read_source
from converters.native.png import GREY, PngKind, check_png_kind
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError
from datakit.scene import check_image, check_png, decode_image
from datakit.scene.records import Frame, SceneStream, SourceFile

from . import assemble
from .assemble import Calibration, Float, Size
from .card import VIEW
from .params import Params
from .splits import SCENE_ID
from .texts import parse_matrix, parse_pairs, read_text, scan_metadata

#: Depth codes per metre where the export does not say (SensReader's default, and that of all released scans).
_DEPTH_SHIFT = 1000.0
_DEPTH_PNG = PngKind(16, (GREY,))
_FOLDERS = ("color", "depth", "pose")
_IN_FOLDER = {
    part: re.compile(rf"(\d+)\.({ext})")
    for part, ext in zip(_FOLDERS, ("jpg|png", "png", "txt"), strict=True)
}
_FLAT = re.compile(r"frame-(\d{6,})\.(?:(color)\.(?:jpg|png)|(depth)\.(?:pgm|png)|(pose)\.txt)")
INFO = "_info.txt"
_MEND = "Export the scan again."


def form_of(names: set[str]) -> str | None:
    """Tell from the names in a folder which exported form it is; None for none."""
    if set(_FOLDERS) <= names:
        return "frames-25k" if "intrinsics_color.txt" in names else "export"
    if INFO in names or any(name.startswith("frame-") and _FLAT.fullmatch(name) for name in names):
        return "export-cpp"
    return None


@dataclass(frozen=True)
class FrameFiles:
    """The files of one frame, relative to the root; `number` is the native frame number."""

    number: int
    color: Path
    depth: Path
    pose: Path


def frame_files(root: Path, relative: Path, form: str) -> list[FrameFiles]:
    """List the frames of an exported scan by number, never by name: the Python tool does not pad them.

    Raises:
        LayoutError: No frames, a frame lacks one of its files, or has one twice.
    """
    found: dict[str, dict[int, Path]] = {part: {} for part in _FOLDERS}
    for part, number, path in _listing(root, relative, form):
        if number in found[part]:
            raise LayoutError(
                "A frame has two files of one kind.", where=root / path, found=found[part][number], mend=_MEND
            )
        found[part][number] = path
    numbers = sorted(set().union(*found.values()))
    if not numbers:
        raise LayoutError(
            "An exported scan without frames.",
            where=root / relative,
            expected="color, depth, pose",
            mend=_MEND,
        )
    for part in _FOLDERS:
        missing = [number for number in numbers if number not in found[part]]
        if missing:
            raise LayoutError(
                f"Frames have no {part} file.",
                where=root / relative,
                expected=f"{part} for all of {len(numbers)} frames",
                found=f"{len(missing)} missing: {missing[:8]}",
                mend=_MEND,
            )
    return [FrameFiles(n, *(found[part][n] for part in _FOLDERS)) for n in numbers]


def _listing(root: Path, relative: Path, form: str) -> Iterator[tuple[str, int, Path]]:
    if form == "export-cpp":
        for name in sorted(os.listdir(inside(root, relative))):
            match = _FLAT.fullmatch(name)
            if match:
                yield match[2] or match[3] or match[4], int(match[1]), relative / name
        return
    for part in _FOLDERS:
        for name in sorted(os.listdir(inside(root, relative / part))):
            match = _IN_FOLDER[part].fullmatch(name)
            if match:
                yield part, int(match[1]), relative / part / name


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open an exported scan; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: Images were resized, depth is not registered, a pose is not rigid.
    """
    relative, form = Path(ref.location["path"]), ref.location["form"]
    sources: list[SourceFile] = []
    files = frame_files(root, relative, form)
    calib, codec = _calibration(root, relative, form, files[0], sources)
    names = [str(item.number) for item in files]
    matrices = np.stack(
        [parse_matrix(read_text(root, item.pose, sources), str(root / item.pose)) for item in files]
    )
    poses, known = assemble.exact_poses(matrices, str(root / relative), names)
    record = assemble.scene_record(
        ref,
        params,
        calib,
        codec=codec,
        poses=poses,
        known=known,
        times=np.array([item.number for item in files]) / params.frame_rate,
        names=names,
        metadata={
            "form": form,
            "depth_shift": 1 / calib.metres_per_code,
            "times": f"frame / {params.frame_rate:g} Hz: an export has no time stamps",
            **scan_metadata(root, relative / f"{_scan_name(root, relative)}.txt", sources),
        },
    )
    return SceneStream(record, _frames(root, files, calib, codec, sources), sources)


def _scan_name(root: Path, relative: Path) -> str:
    """Name of the folder that is called like a scan; the folder's own where none is."""
    parts = (*root.resolve().parts, *relative.parts)
    return next((part for part in reversed(parts) if SCENE_ID.fullmatch(part)), parts[-1])


def _calibration(
    root: Path, relative: Path, form: str, first: FrameFiles, sources: list[SourceFile]
) -> tuple[Calibration, str]:
    """Gather K, sizes and unit, and the colour codec; sizes that no file states are those of the first frame."""
    codec = "png" if first.color.suffix == ".png" else "jpeg"
    sizes = {
        "color": check_image(codec, _bytes(root, first.color), str(root / first.color)),
        "depth": _depth_size(_bytes(root, first.depth), str(root / first.depth)),
    }
    shift = _DEPTH_SHIFT
    if form == "export-cpp":
        matrices, shift = _info(root, relative, sizes, sources)
    else:
        folder, stem = (".", "intrinsics") if form == "frames-25k" else ("intrinsic", "intrinsic")
        names = {f"intrinsic_{part}": relative / folder / f"{stem}_{part}.txt" for part in ("color", "depth")}
        for part in ("color", "depth"):
            path = relative / folder / f"extrinsic_{part}.txt"
            if (root / path).is_file():
                names[f"extrinsic_{part}"] = path
        matrices = {
            name: parse_matrix(read_text(root, path, sources), str(root / path))
            for name, path in names.items()
        }
    where = str(root / relative)
    assemble.check_registered({k: v for k, v in matrices.items() if k.startswith("extrinsic")}, where)
    colour, depth = (check_size(*sizes[part], part.capitalize(), where) for part in ("color", "depth"))
    return Calibration(
        colour,
        depth,
        assemble.corner_k(matrices["intrinsic_color"], colour, f"{where}: intrinsics of colour"),
        assemble.corner_k(matrices["intrinsic_depth"], depth, f"{where}: intrinsics of depth"),
        assemble.metres_per_code(shift, f"{where}: depth shift"),
    ), codec


def _bytes(root: Path, relative: Path) -> bytes:
    return read_source(root, relative, [])


def _info(
    root: Path, relative: Path, sizes: dict[str, Size], sources: list[SourceFile]
) -> tuple[dict[str, Float], float]:
    """Read `_info.txt` of the C++ tool: matrices and codes per metre; its sizes must be the images'."""
    where = root / relative / INFO
    pairs = parse_pairs(read_text(root, relative / INFO, sources))
    matrices = {}
    for name, key in _INFO_MATRICES.items():
        if key not in pairs:
            raise FormatError("A required field is missing.", where=where, expected=key, found=sorted(pairs))
        matrices[name] = parse_matrix(pairs[key], f"{where}: {key}")
    for part, size in sizes.items():
        keys = (f"m_{part}Width", f"m_{part}Height")
        stated = tuple(pairs.get(key, "") for key in keys)
        if stated != tuple(map(str, size)):
            raise FormatError(
                "An image has another size than is stated.",
                where=where,
                expected=f"{keys} = {stated}",
                found=size,
            )
    try:
        shift = float(pairs.get("m_depthShift", _DEPTH_SHIFT))
    except ValueError as error:
        raise FormatError("Not a number.", where=f"{where}: m_depthShift", found=error) from error
    return matrices, shift


_INFO_MATRICES = {
    "intrinsic_color": "m_calibrationColorIntrinsic",
    "extrinsic_color": "m_calibrationColorExtrinsic",
    "intrinsic_depth": "m_calibrationDepthIntrinsic",
    "extrinsic_depth": "m_calibrationDepthExtrinsic",
}


def _frames(
    root: Path, files: Sequence[FrameFiles], calib: Calibration, codec: str, sources: list[SourceFile]
) -> Iterator[Frame]:
    for t, item in enumerate(files):
        colour = read_source(root, item.color, sources)
        size = check_image(codec, colour, str(root / item.color))
        if size != calib.colour_size:
            raise FormatError(
                "An image has another size than the first.",
                where=root / item.color,
                expected=calib.colour_size,
                found=size,
            )
        codes = _depth_codes(read_source(root, item.depth, sources), calib.depth_size, str(root / item.depth))
        yield Frame(VIEW, t, {"rgb": colour, "z_depth": codes})


def _depth_size(data: bytes, where: str) -> Size:
    return read_pgm_head(data, where)[0] if data.startswith(b"P5") else check_png(data, where)


def _depth_codes(data: bytes, size: Size, where: str) -> NDArray[np.uint16]:
    if data.startswith(b"P5"):
        found, start = read_pgm_head(data, where)
        if found != size or len(data) - start != 2 * size[0] * size[1]:
            raise FormatError(
                "A PGM has the wrong size.",
                where=where,
                expected=f"{size}, {2 * size[0] * size[1]} bytes",
                found=f"{found}, {len(data) - start} bytes",
            )
        return np.frombuffer(data, ">u2", offset=start).reshape(size[::-1]).astype(np.uint16)
    check_png_kind(data, _DEPTH_PNG, size, where)
    return np.asarray(decode_image(data, where))


_PGM_HEAD = re.compile(rb"P5\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(\d{1,5})\s")
_PGM_HEAD_BYTES = 1024


def read_pgm_head(data: bytes, where: str) -> tuple[Size, int]:
    """Read the head of a binary 16-bit PGM, which is big endian (sensorData.h:1342-1358).

    Returns:
        (W, H) and where the samples begin.

    Raises:
        FormatError: Not such a file.
    """
    match = _PGM_HEAD.match(data[:_PGM_HEAD_BYTES])
    if match is None or int(match[3]) != 65535:
        raise FormatError(
            "Not a 16-bit PGM.", where=where, expected="P5, width, height, 65535", found=data[:32]
        )
    return (int(match[1]), int(match[2])), match.end()
