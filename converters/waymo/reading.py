"""Both release forms through one door: heads first, then rasters as the frames stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from converters.native.files import inside
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, UsageError
from datakit.scene.records import SceneStream, SourceFile

from . import v1, v2
from .assemble import Rasters, Segment, frames, open_segment, scene_record
from .params import Params

_CHUNK = 1 << 22


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open one segment; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A record or table is truncated or malformed.
        ConventionError: Values break Waymo's conventions.
        UsageError: Not a reference to a Waymo segment; or pyarrow is missing (v2).
    """
    sources: list[SourceFile] = []
    form = ref.location.get("form")
    if form == "v1":
        segment, rasters, where = _open_v1(root, ref, params, sources)
    elif form == "v2":
        segment, rasters, where = _open_v2(root, ref, params, sources)
    else:
        raise UsageError("Not a reference to a Waymo segment.", where=ref.id, found=ref.location)
    return SceneStream(scene_record(ref, segment, params), frames(segment, params, rasters, where), sources)


def _open_v1(
    root: Path, ref: SceneRef, params: Params, sources: list[SourceFile]
) -> tuple[Segment, Iterator[Rasters], str]:
    path = inside(root, ref.location["path"])
    constant, heads = v1.heads(path)
    if constant is None:
        raise FormatError("A segment has no frames.", where=path, expected="TFRecords", found="an empty file")
    return (
        open_segment(constant, heads, params, str(path)),
        _rasters_v1(path, ref, params, sources),
        str(path),
    )


def _rasters_v1(path: Path, ref: SceneRef, params: Params, sources: list[SourceFile]) -> Iterator[Rasters]:
    for frame, where, source in v1.frames(path, params.check_crc):
        sources.append(replace(source, path=ref.location["path"]))
        yield Rasters(dict(v1.pictures(frame)), v1.range_images(frame, where))


def _open_v2(
    root: Path, ref: SceneRef, params: Params, sources: list[SourceFile]
) -> tuple[Segment, Iterator[Rasters], str]:
    tables = v2.open_tables(root, Path(ref.location["path"]), ref.location["context"])
    heads = v2.heads(tables)
    segment = open_segment(v2.calibration(tables, ref.location["context"]), heads, params, tables.where)
    stamps = [head.timestamp_micros for head in heads]
    return segment, _rasters_v2(root, tables, stamps, sources), tables.where


def _rasters_v2(
    root: Path, tables: v2.Tables, stamps: list[int], sources: list[SourceFile]
) -> Iterator[Rasters]:
    yield from v2.rasters(tables, stamps)
    for path in tables.paths.values():
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        sources.append(SourceFile(path.relative_to(root).as_posix(), path.stat().st_size, digest.hexdigest()))
