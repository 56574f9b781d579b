"""Small sound pieces of native files, which fuzzing starts from and traps change."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.co3dv2.annotations import Viewpoint, parse_frame
from datakit.scene import encode_png

#: An item of frame_annotations.jgz.
FRAME: dict[str, Any] = {
    "sequence_name": "110_13051_23361",
    "frame_number": 3,
    "frame_timestamp": 0.5,
    "image": {"path": "a/b.jpg", "size": [3, 4]},
    "depth": {"path": "a/b.png", "scale_adjustment": 1.0, "mask_path": None},
    "mask": {"path": "a/m.png", "mass": 10.0},
    "viewpoint": {
        "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "T": [0, 0, 5],
        "focal_length": [4, 4.5],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": "ndc_isotropic",
    },
    "meta": {"frame_type": "train_known"},
}
SET_LIST = b'{"train": [["s", 1, "p"], ["s", 0, "p"]], "val": [], "test": [["t", 3, "p"]]}'
#: Four pixels wide, three high.
DEPTH_PNG = encode_png(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
MASK_PNG = encode_png(np.ones((3, 4), np.uint8))


def frame(**changes: Any) -> dict[str, Any]:
    return {**FRAME, **changes}


def viewpoint(**changes: Any) -> Viewpoint:
    note = parse_frame(frame(viewpoint={**FRAME["viewpoint"], **changes}), "x")
    assert note.viewpoint is not None
    return note.viewpoint
