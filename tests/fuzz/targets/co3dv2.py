"""CO3Dv2: annotations, their packing, set lists, depth maps and masks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from .kit import EDITS, Target, edited, right_png


def make(folder: Path) -> dict[str, Target]:
    from converters.co3dv2 import Params, annotations, camera, images, jgz, setlists
    from tests.converters.co3dv2.snippets import DEPTH_PNG, FRAME, MASK_PNG, SET_LIST, frame

    text = json.dumps([FRAME, frame(viewpoint=None, depth=None)]).encode()

    def notes(data: bytes) -> None:
        for item in jgz.array_items([data[:37], data[37:]], "x"):
            note = annotations.parse_frame(item.value, "x")
            if note.viewpoint is not None:
                camera.intrinsics_of(note.viewpoint, note.size)
                camera.pose_of(note.viewpoint, Params())

    def frame_values(data: bytes) -> None:
        note = annotations.parse_frame(edited(FRAME, data), "x")
        if note.viewpoint is not None:
            camera.intrinsics_of(note.viewpoint, note.size)
            camera.pose_of(note.viewpoint, Params())

    def sequences(data: bytes) -> None:
        for item in jgz.array_items([data], "x"):
            annotations.parse_sequence(item.value, "x")

    def unpacked(data: bytes) -> None:
        path = folder / "x.jgz"
        path.write_bytes(data)
        for item in jgz.array_items(jgz.Unpacked(path).pieces(), "x"):
            annotations.parse_frame(item.value, "x")

    def depth(data: bytes) -> None:
        images.depth_codes(data, (4, 3), "x")

    def mask(data: bytes) -> None:
        images.check_mask(data, images.mask_bits(data[:25]), (4, 3), "x")
        images.is_black(data, "x")

    sequence = b'[{"sequence_name": "s", "viewpoint_quality_score": 0.5, "point_cloud": {"n_points": 3}}]'
    return {
        "frame-annotations": Target([text], notes),
        "frame-values": Target(EDITS, frame_values),
        "sequence-annotations": Target([sequence], sequences),
        "jgz": Target([gzip.compress(text, mtime=0)], unpacked),
        "set-list": Target([SET_LIST], lambda data: setlists.parse_list(data, "x")),
        "depth-png": Target([DEPTH_PNG], lambda data: depth(right_png(data))),
        "depth-png-raw": Target([DEPTH_PNG], depth),
        "mask-png": Target([MASK_PNG, images.empty_mask(1, (4, 3))], lambda data: mask(right_png(data))),
    }
